#!/usr/bin/env python3
"""Makes the fixtures of this folder from the golden set.  usage: make_fixtures.py GOLDEN_DIR OUT_DIR

Copies a few of the tiny checkpoints (random weights, expected values made with transformers in float32),
drops the expected tensors that no test here reads, and converts one checkpoint to GGUF to cover the permuted
q/k rows and biases of architecture "llama". Needs numpy and gguf."""
import json
import os
import shutil
import struct
import sys

import gguf
import numpy as np

NUMPY = {"F32": np.float32, "BF16": np.uint16, "I32": np.int32}


def read_safetensors(path):
    with open(path, "rb") as f:
        blob = f.read()
    (n,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + n])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        a, b = info["data_offsets"]
        data = np.frombuffer(blob[8 + n + a:8 + n + b], NUMPY[info["dtype"]]).reshape(info["shape"])
        out[name] = (info["dtype"], data)
    return out


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (dtype, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(data.shape), "data_offsets": [offset, offset + data.nbytes]}
        offset += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            f.write(np.ascontiguousarray(data).tobytes())


def copy_expected(src, dst, n_sequences):
    tensors = read_safetensors(src)
    keep = {k: v for k, v in tensors.items()
            if not k.endswith((".attn_out", ".mlp_out")) and int(k[3:k.index(".")]) < n_sequences}
    write_safetensors(dst, keep)


def as_float(dtype, data):
    return (data.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else data.astype(np.float32)


def interleave(data, n_heads):
    """Rows of q/k from pairs (j, j + d/2) to pairs (2j, 2j + 1), head by head."""
    d = data.shape[0] // n_heads
    return data.reshape(n_heads, 2, d // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def to_gguf(folder, path, arch):
    c = json.load(open(f"{folder}/config.json"))
    tensors = read_safetensors(f"{folder}/model.safetensors")
    w = gguf.GGUFWriter(path, arch)
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    w.add_string("general.name", os.path.basename(folder))
    w.add_string("tokenizer.ggml.model", "no_vocab")
    for key, value in {"vocab_size": c["vocab_size"], "context_length": c["max_position_embeddings"],
                       "embedding_length": c["hidden_size"], "block_count": c["num_hidden_layers"],
                       "feed_forward_length": c["intermediate_size"], "attention.head_count": c["num_attention_heads"],
                       "attention.head_count_kv": c["num_key_value_heads"], "attention.key_length": head_dim,
                       "attention.value_length": head_dim, "rope.dimension_count": head_dim}.items():
        w.add_uint32(f"{arch}.{key}", value)
    w.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", c["rms_norm_eps"])
    rope = c.get("rope_parameters") or dict(c.get("rope_scaling") or {}, rope_theta=c["rope_theta"])
    w.add_float32(f"{arch}.rope.freq_base", rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind != "default":
        w.add_string(f"{arch}.rope.scaling.type", kind)
        w.add_float32(f"{arch}.rope.scaling.factor", rope["factor"])
    if kind == "yarn":
        w.add_uint32(f"{arch}.rope.scaling.original_context_length", rope["original_max_position_embeddings"])
    names = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
             "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    top = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
           "model.norm.weight": "output_norm.weight"}
    heads = {"attn_q": c["num_attention_heads"], "attn_k": c["num_key_value_heads"]}
    for name, (dtype, data) in tensors.items():
        if name in top:
            target = top[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            stem, suffix = rest.rsplit(".", 1)
            target = f"blk.{layer}.{names[stem]}.{suffix}"
            if arch == "llama" and names[stem] in heads:
                data = interleave(data, heads[names[stem]])
        if dtype == "BF16" and data.ndim == 2:
            w.add_tensor(target, np.ascontiguousarray(data).view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(target, np.ascontiguousarray(as_float(dtype, data)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    golden, out = sys.argv[1:3]
    for name, parts in {"llama_bias_mha": ["safetensors", "converted"], "qwen3_qknorm": ["safetensors"],
                        "qwen2_bias_tied": ["gguf"], "gemma3_text_legacy_cfg": ["gguf"],
                        "gemma4_unified_text": ["safetensors"], "gemma4_e2b_like": ["gguf"]}.items():
        src, dst = f"{golden}/models/{name}", f"{out}/{name}"
        os.makedirs(dst, exist_ok=True)
        copy_expected(f"{src}/expected.safetensors", f"{dst}/expected.safetensors", 3 if "gemma4" in name else 99)
        if "safetensors" in parts:
            shutil.copyfile(f"{src}/config.json", f"{dst}/config.json")
            shutil.copyfile(f"{src}/model.safetensors", f"{dst}/model.safetensors")
        if "gguf" in parts:
            shutil.copyfile(f"{golden}/gguf/models/{name}.gguf", f"{dst}/model.gguf")
        if "converted" in parts:
            to_gguf(src, f"{dst}/model.gguf", "llama")


if __name__ == "__main__":
    main()
