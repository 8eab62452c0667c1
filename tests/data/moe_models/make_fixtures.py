#!/usr/bin/env python3
"""Makes fixtures from the golden set.  usage: make_fixtures.py GOLDEN_DIR OUT_DIR NAME[:SEQUENCES]...

Copies tiny checkpoints with mixtures of experts (random weights, expected values made with transformers in
float32) and keeps the expected values of their first sequences. Needs numpy. This folder was made with
qwen3_moe_mixed:3 gemma4_moe:2 deepseek_v3_yarn:3, ../v4_models with dsv4_full:3."""
import importlib.util
import os
import shutil
import sys
import types


def load_helpers():
    sys.modules.setdefault("gguf", types.ModuleType("gguf"))  # what is used here does without
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models", "make_fixtures.py")
    spec = importlib.util.spec_from_file_location("models_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    golden, out = sys.argv[1:3]
    helpers = load_helpers()
    helpers.NUMPY.update({"I64": "<i8"})
    for item in sys.argv[3:]:
        name, _, n = item.partition(":")
        src, dst = f"{golden}/models/{name}", f"{out}/{name}"
        os.makedirs(dst, exist_ok=True)
        helpers.copy_expected(f"{src}/expected.safetensors", f"{dst}/expected.safetensors", int(n or 99))
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(f"{src}/{file}", f"{dst}/{file}")


if __name__ == "__main__":
    main()
