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
DRAFTERS = DATA / "draft_formats"


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

    def test_drafters_are_explained(self):
        text = self.succeed("inspect", str(DRAFTERS / "speculators_v160")).stdout
        for line in ("kind             dspark, read from speculators, made for tiny-qwen3",
                     "block            7 slots, 7 drafts per round (slot 0 predicts), mask token 319",
                     "sequential head  vanilla, rank 16", "confidence       head over hidden and Markov row",
                     "layers tapped    target_layer_ids 1, 3, 5: after layer 1, layer 3, layer 5, counted from 0",
                     "vocabulary       160 of 320 (50.0 %)", "embedding        the target's", "head             its own",
                     "parameters       178449: backbone 160448, sequential head 7680, confidence head 81, head 10240"):
            self.assertIn("  " + line + "\n", text)
        self.assertRegex(text, r"fc.weight +BF16 +\[64, 192\]")  # the tensor list stays
        shown = json.loads(self.succeed("inspect", "--json", str(DRAFTERS / "dflash_v160.gguf")).stdout)["drafter"]
        self.assertEqual((shown["kind"], shown["source"]), ("dspark", "GGUF (dflash)"))
        self.assertEqual(shown["target_layer_ids"], [1, 3, 5])
        self.assertEqual(shown["drafts_per_round"], 7)
        self.assertEqual(shown["parts"]["confidence head"]["parameters"], 81)
        self.assertNotIn("drafter", json.loads(self.succeed("inspect", "--json", GGUF).stdout))

    def test_a_damaged_drafter_is_shown_with_the_reason(self):
        folder = self.path / "damaged"
        folder.mkdir()
        source = DRAFTERS / "dspark_vanilla"
        config = json.loads((source / "config.json").read_text())
        del config["mask_token_id"]
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
        text = self.succeed("inspect", "damaged").stdout
        self.assertIn("cannot be used: damaged: config.json: 'mask_token_id' is missing\n", text)
        self.assertIn("tensors (31)", text)

    def test_errors(self):
        self.assertIn("absent.gguf: cannot open", self.fail_with(1, "inspect", "absent.gguf"))
        self.assertIn("deep_json.safetensors", self.fail_with(1, "inspect", str(MALFORMED / "deep_json.safetensors")))
        self.assertIn("model.safetensors", self.fail_with(1, "inspect", str(MALFORMED)))


if __name__ == "__main__":
    unittest.main()
