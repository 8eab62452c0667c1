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
        self.assertEqual(json.loads((self.path / "new.json").read_text())["dspark_cost_table"], 2)

    def test_cache_is_used_and_its_mistakes_are_not_fatal(self):
        cache = {"XDG_CACHE_HOME": str(self.path / "cache")}
        self.assertEqual(self.run_with("auto", environment=cache).returncode, 0)
        files = list((self.path / "cache" / "dspark").glob("costs-*.json"))
        self.assertEqual(len(files), 1)
        files[0].write_text("nonsense")
        self.assertEqual(self.run_with("auto", environment=cache).returncode, 0)
        self.assertEqual(json.loads(files[0].read_text())["dspark_cost_table"], 2)


if __name__ == "__main__":
    unittest.main()
