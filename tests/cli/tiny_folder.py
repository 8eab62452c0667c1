"""The model of tiny_model.py as a Hugging Face folder: config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, chat_template.jinja, model.safetensors.

The weights are those of the GGUF file, with the rows of q and k in the order of such folders, so both must answer
alike. Layouts: https://huggingface.co/docs/safetensors, and tokenizer.json as the tokenizers library writes it.
"""

import json
import struct
from array import array
from pathlib import Path

import tiny_model
from tiny_model import CHAT_TEMPLATE, CONTEXT, DIM, FFN, HEADS, KV_HEADS, LAYERS, byte_characters

SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def tokens_of(specials):
    return [*byte_characters(), "he", *specials]


def tokenizer_json(specials):
    tokens = tokens_of(specials)
    n_plain = len(tokens) - len(specials)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i in range(n_plain, len(tokens))],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(tokens[:n_plain])}, "merges": ["h e"]},
    }


def folder_rows(values, columns, head_dim):
    """Rows of q or k from pairs (2j, 2j + 1), as architecture llama of GGUF has them, to pairs (j, j + head_dim / 2)."""
    rows = [values[i:i + columns] for i in range(0, len(values), columns)]
    out = array("f")
    for head in range(0, len(rows), head_dim):
        for part in (0, 1):
            for pair in range(head_dim // 2):
                out += rows[head + 2 * pair + part]
    return out


def tensors(vocab, seed):
    """Yields (name, shape with the outermost dimension first, values)."""
    for name, shape, values in tiny_model.weights(vocab, seed):
        stem = name.removesuffix(".weight")
        if stem in TOP:
            yield TOP[stem] + ".weight", shape[::-1], values
            continue
        _, layer, part = stem.split(".")
        if part in ("attn_q", "attn_k"):
            values = folder_rows(values, shape[0], DIM // HEADS)
        yield f"model.layers.{layer}.{NAMES[part]}.weight", shape[::-1], values


def write_weights(path, vocab, seed):
    header, data, offset = {}, [], 0
    for name, shape, values in tensors(vocab, seed):
        block = values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + len(block)]}
        data.append(block)
        offset += len(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_tiny_folder(path, seed=7, specials=SPECIALS, eos="<|im_end|>", generation=None):
    """specials: the control tokens, with the ids from 257. eos: named in tokenizer_config.json; None: nothing but
    `generation`, the content of generation_config.json, tells how a text ends. returns: the path."""
    folder = Path(path)
    folder.mkdir(parents=True)
    vocab = len(tokens_of(specials))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": DIM, "intermediate_size": FFN,
              "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
              "vocab_size": vocab, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
              "torch_dtype": "float32"}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": specials[-1]}
    if eos is not None:
        tokenizer_config["eos_token"] = eos
    for name, content in (("config.json", config), ("tokenizer.json", tokenizer_json(specials)),
                          ("tokenizer_config.json", tokenizer_config), ("generation_config.json", generation)):
        if content is not None:
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_weights(folder / "model.safetensors", vocab, seed)
    return str(folder)
