#!/usr/bin/env python3
"""dspark profile and --cost-table on a tiny model with prompt lookup."""

import json
import unittest

from harness import Tool


class Profile(Tool):
    # Rounds are bounded, so the time is never used up: a slow machine must not leave sizes out.
    FLAGS = ("--rows", "8", "--sequences", "2", "--context", "32", "--long-context", "100", "--seconds", "600", "-t", "2")

    def profile(self, *more):
        return self.succeed("profile", "-m", self.chat_model, *self.FLAGS, *more).stdout

    def run_with(self, table, *more, environment=None):
        return self.call("run", "-m", self.chat_model, "-t", "2", "-d", "ngram", "--spec", "adaptive", "-n", "8", "-p", "hello",
                         "--json", "--cost-table", table, *more, environment=environment)

    def test_table_plot_and_json(self):
        text = self.profile("-d", "ngram", "--plot", "costs.svg")
        for part in ("pass of the target", "row(s)", "x one row", "drafter: ngram", "position of context"):
            self.assertIn(part, text)
        self.assertIn("<svg", (self.path / "costs.svg").read_text())
        table = json.loads(self.profile("--json"))
        self.assertEqual([point["n"] for point in table["verify"]], [1, 2, 3, 4, 6, 8])
        self.assertEqual(table["draft"], [])
        self.assertEqual(table["context_curve"], [])  # two contexts, one slope

    def test_more_contexts(self):
        flags = ("--rows", "8", "--context", "32", "--long-context", "1500", "--seconds", "600", "-o", "costs.json", "--json")
        table = json.loads(self.succeed("profile", "-m", self.chat_model, *flags).stdout)
        saved = json.loads((self.path / "costs.json").read_text())
        for curve in ([[point["positions"], point["counted"]] for point in table["context_curve"]], saved["context_curve"]):
            # None where noise made all contexts equally dear.
            self.assertIn([positions for positions, _ in curve], ([], [512, 1500]))

    def test_a_stored_table_is_shown(self):
        self.profile("-d", "ngram", "-o", "costs.json")
        saved = json.loads((self.path / "costs.json").read_text())
        saved["key"]["machine"] = "another machine"
        saved["verify"] = [[1, 0.5], [8, 0.75]]
        saved["context_s"], saved["row_context_s"] = 1e-6, 1e-7
        saved["context_curve"] = [[512, 1000], [2048, 1500]]
        (self.path / "costs.json").write_text(json.dumps(saved))
        show = ("profile", "--cost-table", "costs.json")
        text = self.succeed(*show, "-m", "no-such-model.gguf", "--plot", "stored.svg").stdout
        for part in ("another machine", "500.000 ms", "1.50 x one row", "512 position(s)", "1.100 ms", "2048 position(s)"):
            self.assertIn(part, text)
        self.assertIn("<svg", (self.path / "stored.svg").read_text())
        self.assertIn("positions of context", (self.path / "stored-context.svg").read_text())
        table = json.loads(self.succeed(*show, "--json").stdout)
        self.assertEqual([(point["n"], point["ms"]) for point in table["verify"]], [(1, 500.0), (8, 750.0)])
        self.assertIn("none.json", self.fail_with(1, "profile", "--cost-table", "none.json"))
        (self.path / "broken.json").write_text("{}")
        self.assertIn("dspark_cost_table", self.fail_with(1, "profile", "--cost-table", "broken.json"))

    def test_cost_table_is_read_checked_and_written(self):
        self.profile("-d", "ngram", "-o", "costs.json")
        self.assertEqual(self.run_with("costs.json").returncode, 0)
        saved = json.loads((self.path / "costs.json").read_text())
        saved["key"]["threads"] = 77
        (self.path / "costs.json").write_text(json.dumps(saved))
        failed = self.run_with("costs.json")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("threads: measured for '77'", failed.stderr)
        self.assertEqual(self.run_with("new.json").returncode, 0)
        self.assertEqual(json.loads((self.path / "new.json").read_text())["dspark_cost_table"], 3)

    def test_cache_is_used_and_its_mistakes_are_not_fatal(self):
        cache = {"XDG_CACHE_HOME": str(self.path / "cache")}
        self.assertEqual(self.run_with("auto", environment=cache).returncode, 0)
        files = list((self.path / "cache" / "dspark").glob("costs-*.json"))
        self.assertEqual(len(files), 1)
        files[0].write_text("nonsense")
        self.assertEqual(self.run_with("auto", environment=cache).returncode, 0)
        self.assertEqual(json.loads(files[0].read_text())["dspark_cost_table"], 3)


if __name__ == "__main__":
    unittest.main()
