"""bench/load_sweep.py itself, with a tiny model: everything in one call, and a second call that goes on where it was."""

import json
import subprocess
import sys
import unittest
import xml.dom.minidom

from harness import BINARY, ROOT, SLOWDOWN, Tool
from tiny_drafter import write_tiny_drafter

sys.path.insert(0, str(ROOT / "bench"))
import load_sweep  # noqa: E402
import load_tables  # noqa: E402

ROWS = ("learned-1", "learned-4", "lookup-1", "lookup-4", "noise-1", "noise-4")
REPORTS = ("look", *ROWS, "burst", "poisson", "bursty", "simulated-here", "simulated-gpu")


class Sizes(unittest.TestCase):
    def test_rows_take_the_same_time(self):
        """However fast the load is; only what a load needs at least takes longer."""
        for clients, speed in ((1, 150.0), (8, 480.0), (32, 560.0)):
            for n_runs in (6, 21):
                n = load_sweep.count_requests(600, speed, clients, n_runs, 64)
                seconds = 1.2 * n_runs * (n + clients) * 64 / speed
                self.assertAlmostEqual(seconds, 600, delta=600 * 0.05)
        self.assertEqual(load_sweep.count_requests(1, 150, 1, 6, 64), 12)
        self.assertEqual(load_sweep.count_requests(1, 150, 32, 6, 64), 64)


class Tables(unittest.TestCase):
    def test_ratio_with_its_spread(self):
        verdict = {"r": 0.9854, "r_error": 0.0061, "r_rounds": {"min": 0.98, "max": 0.99}}
        self.assertEqual(load_tables.ratio(verdict, "r"), "0.985 ± 0.006 (0.980-0.990)")
        self.assertEqual(load_tables.ratio({"r": 1.0, "r_error": None, "r_rounds": {"min": 1.0, "max": 1.0}}, "r"), "1.000")

    def test_steps_until_the_budget_followed(self):
        phases = [{"tokens_per_s": s, "verified_per_sequence": 1.0, "steps_to_follow": n, "longest_wait_s": w}
                  for s, n, w in ((10, 3, 0.1), (30, -1, 0.4), (20, 5, 0.2))]
        report = {"burst": [16], "bursts": [{"policy": "adaptive", "passed_over": 0, "rounds": [[phase] for phase in phases]}]}
        self.assertEqual(load_tables.phase_table(report)[-1], "| adaptive | 16 | 20.0 | 1.00 | 5 | 400 | 0 |")
        phases[0]["steps_to_follow"] = -1
        self.assertIn("| never |", load_tables.phase_table(report)[-1])


class Showing(Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.drafter = write_tiny_drafter(cls.path / "drafter")
        cls.prompts = cls.path / "letters.jsonl"
        cls.prompts.write_text("".join(json.dumps({"task": "letters", "id": i, "prompt": p}) + "\n"
                                       for i, p in enumerate(["hello there", "abcabcabc abcabc", "zzzz zzzz"])))

    def sweep(self, *options, status=0):
        """What the script said on stderr."""
        done = subprocess.run([sys.executable, str(ROOT / "bench" / "load_sweep.py"), str(self.prompts), "--quick", "--dspark", BINARY,
                               "-m", self.chat_model, "-d", str(self.drafter), "--threads", "1", "--out", "out", *options],
                              cwd=self.path, capture_output=True, text=True, timeout=200 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr

    def test_everything_and_again(self):
        self.sweep()
        out = self.path / "out"
        text = (out / "load.md").read_text()
        for part in ("Learned drafter", "Prompt lookup", "A drafter of noise", "Burst: 1, 16, 1 clients", "Poisson arrivals",
                     "Bursty arrivals", "Simulated with the costs measured here", "Simulated on a GPU-like curve"):
            self.assertIn(f"## {part}\n", text)
        for column in ("total tok/s", "tok/s of one user", "TTFT p50 / p95 / p99 ms", "token p50 / p95 / p99 ms", "drafted", "verified",
                       "trimmed", "accepted", "measured / predicted", "the same beside prompts", "adaptive / best fixed", "adaptive / off",
                       "steps until the budget followed", "longest wait"):
            self.assertIn(column, text)
        self.assertIn("compared with single runs: 0 differ", text)
        self.assertNotIn("first runs", text)
        for name in ROWS:
            report = json.loads((out / f"{name}.json").read_text())
            self.assertEqual([cell["concurrency"] for cell in report["cells"]], [int(name[-1])] * len(report["policies"]))
            self.assertEqual(report["random_drafter"], name.startswith("noise"))
        for name in ("learned.svg", "lookup.svg", "noise.svg", "burst/burst-adaptive.svg"):
            svg = (out / name).read_text()
            xml.dom.minidom.parseString(svg)
            self.assertNotRegex(svg, "nan|inf")
        for block in text.split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            self.assertLessEqual(len({row.count("|") for row in rows}), 1, rows)
            self.assertNotEqual(len(rows), 2, "a table without rows")

        stamps = {name: (out / f"{name}.json").stat().st_mtime_ns for name in REPORTS}
        (out / "noise-4.done").unlink()  # as if it had been interrupted there
        said = self.sweep()
        again = [name for name in REPORTS if (out / f"{name}.json").stat().st_mtime_ns != stamps[name]]
        self.assertEqual(again, ["noise-4"])
        self.assertIn("learned-1: kept", said)
        # Another setting is another measurement.
        said = self.sweep("--parts", "learned", "--turn-seconds", "0.05")
        self.assertIn("look: kept", said)
        self.assertNotIn("learned-1: kept", said)

    def test_errors(self):
        self.assertIn("--parts", self.sweep("--parts", "learned,luck", status=2))
        self.assertIn("nobody: no such file", self.sweep("--dspark", "nobody", status=2))


if __name__ == "__main__":
    unittest.main()
