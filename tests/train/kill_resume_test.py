"""dspark-train killed with SIGKILL at random moments and resumed: the same log and the same bytes as a run that
was left alone.
usage: kill_resume_test.py DSPARK_TRAIN CASES    CASES: folder with target_qwen3_mini and cache"""
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CASES = sys.argv[1:3]
STEPS = 90


def command(out, *more):
    return [PROGRAM, "-m", f"{CASES}/target_qwen3_mini", "--data", f"{CASES}/cache", "-o", out, "--steps", str(STEPS),
            "--block", "4", "--rank", "8", "--draft-vocab", "64", "--sequences", "2", "--anchors", "6",
            "--holdout", "0.34", "--average", "0.9", "--checkpoint-steps", "7", *more]


def log_rows(run, name="log.csv"):
    """Rows without the column of the clock."""
    with open(f"{run}/{name}") as file:
        rows = [line.rstrip("\n").split(",") for line in file]
    return [row[:1] + row[2:] for row in rows]


def file_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def n_lines(path):
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


class KillResume(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="dspark-kill-")
        self.addCleanup(self.folder.cleanup)

    def out(self, name):
        return os.path.join(self.folder.name, name)

    def run_killed(self, out, more, moments):
        """Kills the program each time its log has reached the next moment; returns how often."""
        kills = 0
        for _ in range(50):
            resume = ["--resume"] if os.path.exists(f"{out}/state.safetensors") else []
            with subprocess.Popen(command(out, *more, *resume), stderr=subprocess.PIPE) as process:
                while moments and process.poll() is None:
                    if n_lines(f"{out}/log.csv") > moments[0]:
                        # Somewhere in the step, its line or its checkpoint.
                        time.sleep(random.uniform(0, 0.02))
                        process.kill()
                        kills += process.wait() == -9
                        moments = moments[1:]
                    else:
                        time.sleep(0.001)
                error = process.stderr.read().decode()
                if process.wait() == 0:
                    return kills
                self.assertEqual(process.returncode, -9, error)
        self.fail("the run does not end")

    def check(self, *more):
        seed = random.randrange(1 << 30)
        random.seed(seed)
        whole, cut = self.out("whole"), self.out("cut")
        subprocess.run(command(whole, *more), check=True, stderr=subprocess.DEVNULL)
        moments = sorted(random.sample(range(1, STEPS - 5), 4))
        with self.subTest(seed=seed, moments=moments):
            kills = self.run_killed(cut, more, moments)
            self.assertGreaterEqual(kills, 1)
            self.assertEqual(len(log_rows(whole)), STEPS + 1)
            self.assertEqual(log_rows(whole), log_rows(cut))
            self.assertEqual(log_rows(whole, "eval.csv"), log_rows(cut, "eval.csv"))
            for name in ("draft/model.safetensors", "draft/config.json", "options.json"):
                self.assertEqual(file_bytes(f"{whole}/{name}"), file_bytes(f"{cut}/{name}"), name)

    def test_plain_run(self):
        self.check()

    def test_run_with_stages(self):
        self.check("--first-stage", "0.3", "--first-anchors", "12", "--curriculum", "--loss-slide")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
