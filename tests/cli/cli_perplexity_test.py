#!/usr/bin/env python3
"""`dspark perplexity`: counts, windows, and the mean against the logits of the same model."""

import json
import math
import unittest

from cli_logits_test import read_safetensors
from harness import Tool


class Perplexity(Tool):
    TEXT = "the harbour town wakes before the light does, and waiting is what the place is for. " * 4

    def setUp(self):
        (self.path / "text.txt").write_text(self.TEXT)

    def measure(self, *arguments):
        command = ("perplexity", "-m", self.base_model, "-f", "text.txt", "--json", *arguments)
        return json.loads(self.succeed(*command).stdout)

    def test_counts_and_relations(self):
        result = self.measure()
        self.assertAlmostEqual(math.exp(result["mean_nll"]), result["perplexity"], places=6)
        self.assertGreater(result["standard_error"], 0)
        self.assertGreater(result["tokens_per_s"], 0)
        self.assertGreaterEqual(result["tokens_processed"], result["tokens_scored"])

    def test_every_token_is_scored_once_whatever_the_windows(self):
        whole = self.measure()
        overlapping = self.measure("--ctx", "32", "--stride", "8")
        self.assertEqual(overlapping["tokens_scored"], whole["tokens_scored"])
        self.assertGreater(overlapping["tokens_processed"], whole["tokens_processed"])
        self.assertEqual(overlapping["ctx"], 32)
        self.assertEqual(overlapping["stride"], 8)

    def test_threads_do_not_matter(self):
        one, two = self.measure("-t", "1"), self.measure("-t", "2")
        self.assertEqual(one["mean_nll"], two["mean_nll"])

    def test_float_path_is_near(self):
        self.assertAlmostEqual(self.measure()["mean_nll"], self.measure("--dtype", "f32")["mean_nll"], delta=0.05)

    def test_text_output_and_stdin(self):
        result = self.succeed("perplexity", "-m", self.base_model, "-f", "-", stdin=self.TEXT)
        self.assertIn("perplexity ", result.stdout)
        self.assertIn("tok/s", result.stdout)

    def test_errors(self):
        command = ("perplexity", "-m", self.base_model, "-f")
        self.assertIn("nowhere.txt", self.fail_with(1, *command, "nowhere.txt"))
        (self.path / "empty.txt").write_text("")
        self.assertIn("expected at least 2", self.fail_with(1, *command, "empty.txt"))
        self.assertIn("--ctx", self.fail_with(1, *command, "text.txt", "--ctx", "1"))
        self.assertIn("--stride", self.fail_with(1, *command, "text.txt", "--stride", "-3"))
        self.assertIn("--kv-type", self.fail_with(1, *command, "text.txt", "--kv-type", "f8"))


if __name__ == "__main__":
    unittest.main()
