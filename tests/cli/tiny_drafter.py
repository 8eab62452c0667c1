"""Makes a tiny random DSpark drafter for the chat model of tiny_model.py, as a DeepSpec folder.

Its drafts are mostly wrong, but always the same. Standard library only. Format: spec of DeepSpec's checkpoints
(config.json with no defaults, one safetensors file; embedding and head may be the target's own).
"""

import json
import random
import struct
from array import array
from pathlib import Path

from tiny_model import DIM, LAYERS

VOCAB, HEADS, KV_HEADS, HEAD_DIM, FFN, RANK = 260, 2, 1, 16, 48, 8


def config(block, confidence, vocab, mask):
    settings = {
        "architectures": ["Qwen3DSparkModel"], "model_type": "qwen3", "hidden_size": DIM, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "intermediate_size": FFN, "vocab_size": vocab, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "attention_bias": False, "tie_word_embeddings": False, "max_position_embeddings": 65536,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "layer_types": ["full_attention"],
        "num_target_layers": LAYERS, "target_layer_ids": [-1, 0], "block_size": block, "mask_token_id": mask,
        "num_anchors": 512, "markov_rank": RANK, "markov_head_type": "vanilla",
        "enable_confidence_head": confidence,
    }
    if confidence:
        settings["confidence_head_with_markov"] = True
    return settings


def shapes(confidence, vocab):
    yield "fc.weight", (DIM, 2 * DIM)
    yield "hidden_norm.weight", (DIM,)
    yield "norm.weight", (DIM,)
    yield "markov_head.markov_w1.weight", (vocab, RANK)
    yield "markov_head.markov_w2.weight", (vocab, RANK)
    if confidence:
        yield "confidence_head.proj.weight", (1, DIM + RANK)
        yield "confidence_head.proj.bias", (1,)
    layer = "layers.0."
    yield layer + "input_layernorm.weight", (DIM,)
    yield layer + "post_attention_layernorm.weight", (DIM,)
    yield layer + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, DIM)
    yield layer + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, DIM)
    yield layer + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, DIM)
    yield layer + "self_attn.o_proj.weight", (DIM, HEADS * HEAD_DIM)
    yield layer + "self_attn.q_norm.weight", (HEAD_DIM,)
    yield layer + "self_attn.k_norm.weight", (HEAD_DIM,)
    yield layer + "mlp.gate_proj.weight", (FFN, DIM)
    yield layer + "mlp.up_proj.weight", (FFN, DIM)
    yield layer + "mlp.down_proj.weight", (DIM, FFN)


def write_tiny_drafter(folder, block=4, confidence=True, vocab=VOCAB, seed=11):
    """Writes the folder; `vocab` other than the model's makes a drafter for another target."""
    folder = Path(folder)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config(block, confidence, vocab, 259)))
    noise = random.Random(seed)
    header, data, offset = {}, [], 0
    for name, shape in shapes(confidence, vocab):
        size = 1
        for n in shape:
            size *= n
        if "norm" in name:
            values = array("f", [1.0] * size)
        else:
            values = array("f", (noise.gauss(0, 0.3) for _ in range(size)))
        block_bytes = values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + len(block_bytes)]}
        data.append(block_bytes)
        offset += len(block_bytes)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return str(folder)
