"""Makes an MTP drafter for the chat model of tiny_model.py whose numbers can be told by hand, as a DeepSpec folder.

Its layer adds nothing (output projections of zero), so a draft comes from what eh_proj lets through: the newest token's
embedding, or the target's last hidden state. Standard library only.
"""

import json
import struct
from array import array
from pathlib import Path

from tiny_model import DIM, LAYERS, shapes

VOCAB, HEADS, KV_HEADS, HEAD_DIM, FFN = 260, 2, 1, 16, 48


def config():
    return {
        "architectures": ["Qwen3MTPModel"], "model_type": "qwen3", "hidden_size": DIM, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN,
        "vocab_size": VOCAB, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False,
        "tie_word_embeddings": False, "max_position_embeddings": 65536,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "layer_types": ["full_attention"],
        "num_target_layers": LAYERS,
    }


def tensors(passes):
    """name -> (shape, values). passes: "embedding" or "hidden"."""
    def filled(shape, value):
        n = 1
        for d in shape:
            n *= d
        return shape, [value] * n

    # [dim, embedding | hidden state]
    first = 0 if passes == "embedding" else DIM
    pair = [1.0 if column == row + first else 0.0 for row in range(DIM) for column in range(2 * DIM)]
    out = {name: filled((DIM,), 1.0) for name in ("enorm.weight", "hnorm.weight", "norm.weight")}
    out["eh_proj.weight"] = ((DIM, 2 * DIM), pair)
    layer = "layers.0."
    for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
        out[layer + name] = filled((DIM,), 1.0)
    for name in ("self_attn.q_norm.weight", "self_attn.k_norm.weight"):
        out[layer + name] = filled((HEAD_DIM,), 1.0)
    for name, shape in (("self_attn.q_proj", (HEADS * HEAD_DIM, DIM)), ("self_attn.k_proj", (KV_HEADS * HEAD_DIM, DIM)),
                        ("self_attn.v_proj", (KV_HEADS * HEAD_DIM, DIM)), ("mlp.gate_proj", (FFN, DIM)),
                        ("mlp.up_proj", (FFN, DIM))):
        out[layer + name + ".weight"] = filled(shape, 0.1)
    out[layer + "self_attn.o_proj.weight"] = filled((DIM, HEADS * HEAD_DIM), 0.0)
    out[layer + "mlp.down_proj.weight"] = filled((DIM, FFN), 0.0)
    return out


def write_tiny_mtp(folder, passes):
    folder = Path(folder)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config()))
    header, data, offset = {}, [], 0
    for name, (shape, values) in tensors(passes).items():
        block = array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + len(block)]}
        data.append(block)
        offset += len(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return str(folder)


def embedding_rows(path):
    """The embedding of a model of tiny_model.py, row by row; it is the first tensor of the file."""
    sizes = []
    for _, shape in shapes(VOCAB):
        n = 4
        for d in shape:
            n *= d
        sizes.append(n + -n % 32)
    blob = Path(path).read_bytes()[-sum(sizes):]
    values = array("f", blob[:4 * DIM * VOCAB])
    return [values[DIM * row:DIM * (row + 1)] for row in range(VOCAB)]
