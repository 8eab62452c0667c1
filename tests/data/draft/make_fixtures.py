#!/usr/bin/env python3
"""Cuts the fixtures of this folder, of ../drafters and of ../rules out of the full reference set.

    tests/data/draft/make_fixtures.py GOLDEN     (the folder that holds draft/)

Whole generations stay as they are, forced rounds are cut to the first few, and of their tensors stays what a test
compares. Needs the standard library only; the same bytes every time.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRAFTERS = HERE.parent / "drafters"
ROUNDS = 3
# Whole drafters, with the target's own values for their prompt.
WHOLE = ("qwen3_dflash", "qwen3_dspark_noconf", "qwen3_eagle3")
# In ../drafters: their rounds lie there already, here come their whole generations.
GENERATIONS = ("gemma4_dspark_vanilla", "qwen3_dspark_gated", "qwen3_dspark_rnn")
RULES = ("scheduler.json", "sts.json")


def read_safetensors(path):
    """name -> (header entry, bytes)."""
    blob = path.read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + size])
    header.pop("__metadata__", None)
    data = blob[8 + size:]
    return {name: (info, data[info["data_offsets"][0]:info["data_offsets"][1]]) for name, info in sorted(header.items())}


def write_safetensors(path, tensors):
    header, parts, offset = {}, [], 0
    for name, (info, data) in tensors.items():
        header[name] = {"dtype": info["dtype"], "shape": info["shape"], "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def round_of(name):
    """The number of the round that a tensor belongs to; -1: to none."""
    head = name.split(".", 1)[0]
    return int(head[1:]) if head[:1] == "r" and head[1:].isdigit() else -1


def cut_json(source, target, n_rounds):
    expected = json.loads(source.read_text())
    expected.pop("tensors", None)
    for key in ("forced_rounds", "rounds"):
        if key in expected:
            expected[key] = expected[key][:n_rounds]
    target.write_text(json.dumps(expected, separators=(",", ":")) + "\n")


def cut_tensors(source, target, keep):
    tensors = read_safetensors(source)
    write_safetensors(target, {name: value for name, value in tensors.items() if keep(name)})


def copy_whole(golden, name):
    source, target = golden / "drafts" / name, HERE / "drafts" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(source / file, target / file)
    cut_json(source / "expected.json", target / "expected.json", ROUNDS)
    cut_tensors(source / "expected.safetensors", target / "expected.safetensors",
                lambda tensor: round_of(tensor) < ROUNDS and not tensor.endswith("target_logits"))


def copy_sources(golden):
    """Rounds of a drafter whose weights lie in ../draft_formats in other containers."""
    for source, name in ((golden / "drafts" / "qwen3_dspark_vanilla", "qwen3_dspark_vanilla"),
                         (golden / "speculators" / "qwen3_dspark_vanilla_v160", "qwen3_dspark_vanilla_v160")):
        target = HERE / "sources" / name
        target.mkdir(parents=True, exist_ok=True)
        expected = json.loads((source / "expected.json").read_text())
        rounds = expected.get("forced_rounds", expected.get("rounds"))[:ROUNDS]
        (target / "expected.json").write_text(json.dumps({"rounds": rounds}, separators=(",", ":")) + "\n")
        cut_tensors(source / "expected.safetensors", target / "expected.safetensors",
                    lambda tensor: 0 <= round_of(tensor) < ROUNDS
                    and tensor.endswith((".features_in", ".Z", ".confidence_logits")))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    golden = Path(sys.argv[1]) / "draft"
    for folder in ("targets/qwen3",):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copyfile(golden / folder / file, HERE / folder / file)
    for name in WHOLE:
        copy_whole(golden, name)
    for name in GENERATIONS:
        cut_json(golden / "drafts" / name / "expected.json", DRAFTERS / "drafts" / name / "expected.json", ROUNDS)
    copy_sources(golden)
    for name in RULES:
        shutil.copyfile(golden / "rules" / name, HERE.parent / "rules" / name)


if __name__ == "__main__":
    main()
