#!/usr/bin/env python3
"""Cuts reference checkpoints and their GGUF twins down to one layer and 64 tokens.

usage: make_fixtures.py GOLDEN_DIR OUT_DIR      (GOLDEN_DIR holds models/ and gguf/models/)
The GGUF files were written by a converter that is independent of this project; cutting drops tensors and rows
and corrects block_count and vocab_size, all values stay.
"""
import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

CASES = ["llama3_rope", "qwen2_bias_tied", "qwen3_qknorm", "gemma3_text_legacy_cfg"]
VOCAB = 64
VOCAB_TENSORS = {"model.embed_tokens.weight", "lm_head.weight", "token_embd.weight", "output.weight"}


def read_safetensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    for name, t in header.items():
        begin, end = t["data_offsets"]
        yield name, t["dtype"], t["shape"], data[8 + n + begin : 8 + n + end]


def cut_safetensors(folder, out):
    header, blob = {}, b""
    for path in sorted(folder.glob("model*.safetensors")):
        for name, dtype, shape, data in read_safetensors(path):
            if "layers." in name and "layers.0." not in name:
                continue
            if name in VOCAB_TENSORS:
                data = data[: len(data) // shape[0] * VOCAB]
                shape = [VOCAB] + shape[1:]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
            blob += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + blob)


def cut_config(folder, out):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 1
    config["vocab_size"] = VOCAB
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:1]
    (out / "config.json").write_text(json.dumps(config, indent=1))


def cut_gguf(path, out):
    reader = gguf.GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, arch)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = field.contents()
        value = {f"{arch}.block_count": 1, f"{arch}.vocab_size": VOCAB}.get(key, value)
        writer.add_key_value(key, value, field.types[0])
    for t in reader.tensors:
        if t.name.startswith("blk.") and not t.name.startswith("blk.0."):
            continue
        data = np.array(t.data)
        if t.name in VOCAB_TENSORS:
            data = data[:VOCAB]
        writer.add_tensor(t.name, data, raw_dtype=t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


golden, out_dir = map(Path, sys.argv[1:])
for case in CASES:
    out = out_dir / case
    out.mkdir(parents=True, exist_ok=True)
    cut_safetensors(golden / "models" / case, out)
    cut_config(golden / "models" / case, out)
    cut_gguf(golden / "gguf" / "models" / f"{case}.gguf", out / "reference.gguf")
