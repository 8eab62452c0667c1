#!/usr/bin/env python3
"""dspark inspect: what it shows of files and folders, in text and as JSON."""

import json
import unittest
from pathlib import Path

from harness import Tool

DATA = Path(__file__).resolve().parent.parent / "data"
GGUF = str(DATA / "formats" / "gguf" / "models" / "tiny_sharded.gguf")
FOLDER = str(DATA / "formats" / "models" / "tiny_sharded")
MALFORMED = DATA / "malformed"


class Inspect(Tool):
    def test_gguf(self):
        text = self.succeed("inspect", GGUF).stdout
        self.assertIn("GGUF, 3 tensors, 1.0 KiB", text)
        self.assertRegex(text, r"u32 +qwen2.block_count = 1\n")
        self.assertRegex(text, r"f32 +qwen2.attention.layer_norm_rms_epsilon = 1e-06\n")
        self.assertRegex(text, r'string\[\] tokenizer.ggml.tokens = \["t0", "t1", "t2", "t3", \.\.\. 20 in all\]\n')
        self.assertRegex(text, r"blk.0.attn_q.weight +F32 +\[12, 8\] +384\n")
        self.assertRegex(text, r"F32 +3 +264 +1056\n")
        self.assertIn('"t19"', self.succeed("inspect", GGUF, "--full").stdout)

    def test_gguf_as_json(self):
        shown = json.loads(self.succeed("inspect", "--json", GGUF).stdout)
        self.assertEqual(shown["format"], "GGUF")
        self.assertEqual(shown["metadata"]["tokenizer.ggml.tokens"],
                         {"length": 20, "first": ["t0", "t1", "t2", "t3"]})
        self.assertIs(shown["metadata"]["tokenizer.ggml.add_bos_token"], False)
        self.assertEqual(shown["tensors"][1],
                         {"name": "blk.0.attn_q.weight", "type": "F32", "shape": [12, 8], "bytes": 384})
        self.assertEqual(shown["totals"], {"F32": {"tensors": 3, "elements": 264, "bytes": 1056}})
        full = json.loads(self.succeed("inspect", "--json", "--full", GGUF).stdout)
        self.assertEqual(full["metadata"]["tokenizer.ggml.tokens"][19], "t19")

    def test_folder(self):
        text = self.succeed("inspect", FOLDER).stdout
        self.assertIn('"hidden_size": 8', text)
        self.assertRegex(text, r"model.embed_tokens.weight +F32 +\[20, 8\] +640\n")
        shown = json.loads(self.succeed("inspect", "--json", FOLDER).stdout)
        self.assertEqual(shown["config"]["model_type"], "qwen2")
        self.assertEqual(shown["generation_config"]["eos_token_id"], [1, 2])

    def test_every_value_type_and_odd_names(self):
        path = str(MALFORMED / "ok_all_value_types.gguf")
        self.assertRegex(self.succeed("inspect", path).stdout, r"u64 +t.u64 = 18446744073709551615\n")
        self.assertEqual(json.loads(self.succeed("inspect", "--json", path).stdout)["metadata"]["t.u64"], 2**64 - 1)
        # Line breaks and quotes of a name do not reach the terminal as they are.
        escaped = self.succeed("inspect", str(MALFORMED / "ok_escaped_name.safetensors")).stdout
        self.assertIn('"a\u00e9\\n\\""', escaped)

    def test_errors(self):
        self.assertIn("absent.gguf: cannot open", self.fail_with(1, "inspect", "absent.gguf"))
        self.assertIn("deep_json.safetensors", self.fail_with(1, "inspect", str(MALFORMED / "deep_json.safetensors")))
        self.assertIn("model.safetensors", self.fail_with(1, "inspect", str(MALFORMED)))


if __name__ == "__main__":
    unittest.main()
