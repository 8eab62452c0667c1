#!/usr/bin/env python3
"""bench/loop_share.py and bench/draft_roof.py: what they make of measurements, and that they run."""

import argparse
import json
import subprocess
import sys
import unittest

from harness import BINARY, ROOT, SLOWDOWN, Tool
from tiny_drafter import write_tiny_drafter

sys.path.insert(0, str(ROOT / "bench"))
import draft_roof  # noqa: E402
import loop_share  # noqa: E402

SCRIPT = ROOT / "bench" / "loop_share.py"


class LoopShare(Tool):
    def test_shares(self):
        run = {"engine": {"draft_s": 1.0, "forward_s": 6.0, "commit_s": 1.0, "step_s": 10.0}}
        self.assertAlmostEqual(loop_share.share_of_run(run), 0.2)
        part = {"draft_s": 1.0, "forward_s": 2.0, "commit_s": 0.5, "loop_s": 0.5, "outside_s": 1.0, "seconds": 5.0}
        more = {**part, "loop_s": 1.5}
        report = {"cells": [{"concurrency": 8, "policy": "off", "rounds": [part, more]}]}
        ((inside, outside), (other, _)), = loop_share.shares_of_load(report).values()
        self.assertAlmostEqual(inside, 0.125)
        self.assertAlmostEqual(outside, 0.2)
        self.assertAlmostEqual(other, 0.3)
        self.assertEqual(loop_share.spread([0.01, 0.03, 0.02]), "2.00 % (1.00-3.00)")

    def test_models(self):
        self.assertEqual(loop_share.named_model("a.gguf"), ("a.gguf", "ngram"))
        self.assertEqual(loop_share.named_model("a.gguf=d/x.gguf"), ("a.gguf", "d/x.gguf"))

    def test_every_row_is_measured(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        done = subprocess.run([sys.executable, "-B", str(SCRIPT), f"{self.chat_model}={drafter}", "--quick", "--threads", "1",
                               "--dspark", BINARY], capture_output=True, text=True, timeout=240 * SLOWDOWN, check=False,
                              env={"XDG_CACHE_HOME": str(self.path / "cache"), "PATH": "/usr/bin:/bin"})
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
        got = {(row[1], row[2], int(row[3])) for row in rows}
        want = {(sampling, policy, n) for sampling in ("greedy", "temperature 0.8") for policy in loop_share.POLICIES
                for n in loop_share.SEQUENCES}
        want |= {("default sampler, 0.8", policy, 1) for policy in loop_share.POLICIES}
        self.assertEqual(got, want)
        self.assertEqual(len(rows), len(want))
        for row in rows:
            percent = float(row[4].split()[0])
            self.assertTrue(0 <= percent < 100, row)

    def test_failures_are_told(self):
        done = subprocess.run([sys.executable, "-B", str(SCRIPT), "nowhere.gguf", "--quick", "--dspark", BINARY],
                              capture_output=True, text=True, timeout=60 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("loop_share: error:", done.stderr)
        self.assertIn("nowhere.gguf", done.stderr)


class DraftRoof(Tool):
    def program(self, name, *lines):
        """A program that prints these objects whatever it is asked."""
        path = self.path / name
        path.write_text("#!/bin/sh\n" + "".join(f"echo '{json.dumps(line)}'\n" for line in lines))
        path.chmod(0o755)
        return path

    def test_both_roofs(self):
        # 10 MB take 0.1 ms from the cache and 1 ms from memory; products take 0.2 ms, or 4 for eight.
        one = {"sequences": 1, "pass_ms": 8.0, "draft_ms": 0.6, "warm_draft_ms": 0.4, "bytes": 1e7, "ops": 2e8}
        many = {"sequences": 8, "pass_ms": 16.0, "draft_ms": 8.0, "warm_draft_ms": 6.0, "bytes": 1e7, "ops": 4e9}
        roofs = self.program("roofs", {"read_gb_per_s": 10, "cached_read_gb_per_s": 100, "int8_gop_per_s": 1000})
        share = self.program("draft_share", one, many)
        found = draft_roof.measure(share, roofs, "model.gguf", argparse.Namespace(threads=2, rounds=3))
        self.assertEqual([len(found[n]) for n in (1, 8)], [3, 3])
        self.assertEqual(found[1][0]["cache"], (0.2, "int8"))
        self.assertEqual(found[1][0]["memory"], (1.0, "memory"))
        self.assertEqual(found[8][0]["cache"], (4.0, "int8"))
        self.assertEqual(found[8][0]["memory"], (4.0, "int8"))
        slower = draft_roof.roof_ms(one, 20, 1000, "cache")
        self.assertEqual(slower, (0.5, "cache"))
        self.assertEqual(draft_roof.table_line("folder/model.gguf", 1, found[1]),
                         "| model.gguf | 1 | 0.600 | 0.400 | 0.200 (int8) | 3.00 (3.00-3.00) | 2.00 (2.00-2.00) "
                         "| 1.000 (memory) | 0.60 (0.60-0.60) | 7.5 % |")

    def test_failures_are_told(self):
        done = subprocess.run([sys.executable, "-B", str(ROOT / "bench" / "draft_roof.py"), "m.gguf", "--binary", "nowhere"],
                              capture_output=True, text=True, timeout=60 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nowhere does not exist", done.stderr)


if __name__ == "__main__":
    unittest.main()
