#!/usr/bin/env python3
"""`dspark bench`: the shape of its output; no times are judged."""

import json
import unittest

from harness import Tool


class Bench(Tool):
    FLAGS = ("--rows", "1,3,8", "--prefill", "70", "--depths", "0,200", "-r", "2", "--pass-depth", "40", "-t", "2")

    def test_json_rows(self):
        rows = json.loads(self.succeed("bench", "-m", self.chat_model, *self.FLAGS, "--json").stdout)
        found = {(row["test"], row.get("rows", row.get("tokens", row.get("depth")))) for row in rows}
        self.assertEqual(found, {("pass", 1), ("pass", 3), ("pass", 8), ("prefill", 70), ("decode", 0), ("decode", 200)})
        for row in rows:
            value = row["ms"] if row["test"] == "pass" else row["tokens_per_s"]
            self.assertGreater(value, 0)
            self.assertLessEqual(row["min"], value)
            self.assertGreaterEqual(row["max"], value)

    def test_table(self):
        text = self.succeed("bench", "-m", self.chat_model, *self.FLAGS).stdout
        for part in ("prefill    70 tokens", "decode at depth   200", "pass of   8 row(s)", "x one row"):
            self.assertIn(part, text)

    def test_passes_at_several_depths(self):
        flags = ("-m", self.chat_model, "--rows", "1,4", "--pass-depths", "16,300", "--prefill", "0", "--depths", "0", "-r", "1")
        rows = json.loads(self.succeed("bench", *flags, "--json").stdout)
        found = [(row["depth"], row["rows"]) for row in rows if row["test"] == "pass"]
        self.assertEqual(found, [(16, 1), (16, 4), (300, 1), (300, 4)])
        lines = self.succeed("bench", *flags).stdout.splitlines()
        for depth in (16, 300):
            at = lines.index(f"passes with {depth} tokens in the cache:")
            self.assertIn("1.00 x one row", lines[at + 1])  # of the same depth
            self.assertIn("pass of   4 row(s)", lines[at + 2])

    def test_limits(self):
        bench = ("bench", "-m", self.chat_model)
        self.assertIn("context of 65536", self.fail_with(1, *bench, "--depths", "70000"))
        self.assertIn("--rows", self.fail_with(1, *bench, "--rows", "0"))
        self.assertIn("--pass-depths", self.fail_with(1, *bench, "--pass-depths", "8,-1"))
        self.assertIn("context of 65536", self.fail_with(1, *bench, "--pass-depths", "8,65530", "--rows", "7"))
        self.assertIn("--repeats", self.fail_with(1, *bench, "-r", "0"))


if __name__ == "__main__":
    unittest.main()
