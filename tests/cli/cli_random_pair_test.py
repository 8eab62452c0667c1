"""bench/random_pair.py itself, with tiny models: it writes, quantises, measures and prints its table."""

import subprocess
import sys
import unittest

from harness import BINARY, ROOT, Tool


class RandomPair(Tool):
    def table(self, name, *options):
        out = self.path / name
        command = [sys.executable, str(ROOT / "bench" / "random_pair.py"), "--quick", "--dspark", BINARY,
                   "--out", str(out), "--threads", "1", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
        self.assertEqual(len(lines), 3, done.stdout)
        head, rule, row = lines
        self.assertEqual({len(head), len(rule)}, {len(row)})
        self.assertFalse(any(path.is_dir() for path in out.iterdir()), "BF16 folders are left")
        return dict(zip(head, row))

    def test_a_dense_pair(self):
        row = self.table("dense")
        self.assertEqual(row["model"], "quick Q4_0")
        self.assertIn("(x1.00)", row["pass of 1, ms"])
        for rows in (2, 4, 8, 16):
            self.assertGreater(float(row[f"pass of {rows}, ms"].split()[0]), 0)
        self.assertGreater(float(row["7 drafts, ms"]), 0)
        self.assertTrue(row["drafts / pass of 1"].endswith("%"))
        self.table("dense")  # with the files of the first run

    def test_a_mixture(self):
        self.assertEqual(self.table("mixture", "--moe", "--type", "Q8_0")["model"], "mixture Q8_0")


if __name__ == "__main__":
    unittest.main()
