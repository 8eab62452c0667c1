#!/usr/bin/env python3
"""`dspark logits`: the file it writes, against the expected values of a fixture."""

import unittest
from pathlib import Path

from harness import Tool
from safetensors_file import largest_difference, read_safetensors

FIXTURE = Path(__file__).resolve().parent.parent / "data" / "models" / "llama_bias_mha"


class Logits(Tool):
    def run_logits(self, *arguments):
        out = str(self.path / "out.safetensors")
        self.succeed("logits", "-o", out, *arguments)
        return read_safetensors(out)

    def test_float_path_matches_the_reference(self):
        expected = read_safetensors(FIXTURE / "expected.safetensors")
        ids = expected["seq1.input_ids"][1].tolist()
        for model in (FIXTURE, FIXTURE / "model.gguf"):
            got = self.run_logits("-m", str(model), "--tokens", ",".join(map(str, ids)), "--layers", "0,3",
                                  "--dtype", "f32", "--threads", "1")
            self.assertEqual(set(got), {"logits", "final_norm", "hidden.0", "hidden.3", "input_ids"})
            self.assertEqual(got["input_ids"][1].tolist(), ids)
            self.assertEqual(got["logits"][0], [len(ids), 320])
            self.assertLess(largest_difference(got["logits"][1], expected["seq1.logits"][1]), 2e-4)
            self.assertEqual(got["final_norm"][0], [len(ids), 64])
            self.assertLess(largest_difference(got["final_norm"][1], expected["seq1.final_norm"][1]), 2e-3)
            stream = len(ids) * 64
            hidden = expected["seq1.hidden"][1]
            self.assertLess(largest_difference(got["hidden.0"][1], hidden[:stream]), 1e-6)
            self.assertLess(largest_difference(got["hidden.3"][1], hidden[3 * stream:4 * stream]), 2e-3)

    def test_serving_path_is_the_default(self):
        model = ("-m", str(FIXTURE), "--tokens", "5,6,7")
        serving = self.run_logits(*model)
        exact = self.run_logits(*model, "--dtype", "f32")
        self.assertEqual(set(serving), {"logits", "final_norm", "input_ids"})
        difference = largest_difference(serving["logits"][1], exact["logits"][1])
        self.assertGreater(difference, 0)  # the bf16 cache
        self.assertLess(difference, 0.3)

    def test_errors(self):
        out = str(self.path / "none.safetensors")
        logits = ("logits", "-m", str(FIXTURE), "-o", out, "--tokens")
        self.assertIn("--tokens: 320", self.fail_with(1, *logits, "1,320"))
        self.assertIn("--tokens: -1", self.fail_with(1, *logits, "-1"))
        self.assertIn("--layers: 4", self.fail_with(1, *logits, "1,2", "--layers", "4"))
        self.assertIn("twice", self.fail_with(1, *logits, "1,2", "--layers", "1,1"))
        self.assertIn("--dtype", self.fail_with(1, *logits, "1", "--dtype", "f16"))
        self.assertFalse(Path(out).exists())


if __name__ == "__main__":
    unittest.main()
