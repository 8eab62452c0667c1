#!/usr/bin/env python3
"""bench/train_variants.py: what it calls, also behind a cut, what it makes of the answers; and itself where there is a
trainer."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from harness import BINARY, ROOT, SLOWDOWN, Tool

sys.path.insert(0, str(ROOT / "bench"))
import train_variants  # noqa: E402

SCRIPT = ROOT / "bench" / "train_variants.py"
TRAINER = Path(BINARY).parent / "dspark-train"

# Writes what the commands leave behind, and down how it was called, with its processors. $CUT_OFF: words of a call that
# fails; $WAIT_IN: of a training that goes on until it is told to end, and then ends well, as the real one does.
PROGRAM = f"""#!{sys.executable} -B
import json, os, pathlib, signal, struct, sys, time
words = sys.argv[1:]
call = " ".join(words)
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    calls.write(json.dumps([words, sorted(os.sched_getaffinity(0))]) + "\\n")
if os.environ.get("CUT_OFF") and os.environ["CUT_OFF"] in call:
    sys.exit("cut off")
if words[0] == "train":
    run = pathlib.Path(words[words.index("-o") + 1])
    layers = int(words[words.index("--layers") + 1]) if "--layers" in words else 1
    (run / "draft").mkdir(parents=True, exist_ok=True)
    told = []
    signal.signal(signal.SIGINT, lambda *_: told.append(1))
    (run / "state.safetensors").touch()
    if os.environ.get("WAIT_IN") and os.environ["WAIT_IN"] in call:
        pathlib.Path(os.environ["CALLS"] + ".waits").touch()
        end = time.monotonic() + {120 * SLOWDOWN}
        while not told and time.monotonic() < end:
            time.sleep(0.01)
        sys.exit(0 if told else "never told to end")
    header = json.dumps({{"__metadata__": {{}}, "fc.weight": {{"dtype": "BF16", "shape": [1000 * layers, 1000]}},
                         "d2t": {{"dtype": "I64", "shape": [7]}}}}).encode()
    (run / "draft" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    head = "step,elapsed_s,anchors,epoch,tau_prob\\n"
    (run / "log.csv").write_text(head + "1,30.0,600,0.1,1.5\\n2,90.0,1200,0.2,1.6\\n")
    (run / "eval.csv").write_text(head + "2,91.0,1200,0.0,1.75\\n")
elif words[0] == "quantize":
    pathlib.Path(words[-1]).write_text(words[-2])
elif words[0] == "eval":
    hot = float(words[words.index("--temp") + 1]) > 0
    tasks = [pathlib.Path(word).stem for word in words if word.endswith(".jsonl")]
    numbers = [{{"task": task, "all": {{"tokens_per_step": 2.0 + i - 0.5 * hot}}}} for i, task in enumerate(tasks)]
    macro = {{"tau": 2.5 - 0.5 * hot, "conditional_acceptance_by_position": [0.5, None], "accept_rate_by_position": [0.5, 0.25]}}
    pathlib.Path(words[-1]).write_text(json.dumps({{"tasks": numbers, "macro": macro, "accept_rule": "coupled"}}))
"""


def words_behind(words, option):
    """What follows an option, up to the next one."""
    behind = words[words.index(option) + 1:]
    n = next((i for i, word in enumerate(behind) if word.startswith("-")), len(behind))
    return behind[:n]


class Variants(Tool):
    def setUp(self):
        self.root = self.path / self.id().rsplit(".", 1)[1]
        self.root.mkdir()
        self.out, self.calls = self.root / "out", self.root / "calls"
        program = self.root / "dspark"
        program.write_text(PROGRAM, encoding="utf-8")
        program.chmod(0o755)
        for name in ("maths.jsonl", "code.jsonl", "model.gguf"):
            (self.root / name).touch()
        (self.root / "cache").mkdir()

    def command(self, *more, prompts=("maths.jsonl", "code.jsonl")):
        return [sys.executable, "-B", str(SCRIPT), "-m", str(self.root / "model.gguf"), "--data", str(self.root / "cache"),
                "-o", str(self.out), "--dspark", str(self.root / "dspark"), *(str(self.root / name) for name in prompts), *more]

    def environment(self, **more):
        return {**os.environ, "CALLS": str(self.calls), **more}

    def compare(self, *more, status=0, prompts=("maths.jsonl", "code.jsonl"), **environment):
        """What the script prints (its error when it must fail), and the calls of the program: [(words, processors)]."""
        self.calls.write_text("")
        done = subprocess.run(self.command(*more, prompts=prompts), capture_output=True, text=True, check=False,
                              timeout=120 * SLOWDOWN, env=self.environment(**environment))
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr if status else done.stdout, self.said()

    def said(self):
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    def of(self, calls, what, variant):
        """The one call of this kind for a variant."""
        found = [words for words, _ in calls if words[0] == what and f"/{variant}/" in " ".join(words)]
        self.assertEqual(len(found), 1, (what, variant, calls))
        return found[0]

    def test_every_variant_from_training_to_table(self):
        text, calls = self.compare("--minutes", "1.5", "--threads", "2", "--temps", "0,1", "--train-args", "--anchors 28 --seed 1",
                                   "--eval-args=--raw", "--limit", "5", "-n", "30", "--variants", ",".join(train_variants.VARIANTS))
        self.assertEqual(len(calls), 7 * 4)
        for name, options in train_variants.VARIANTS.items():
            train, quantize = self.of(calls, "train", name), self.of(calls, "quantize", name)
            self.assertEqual(train[train.index("--minutes"):],
                             ["--minutes", "1.5", "--threads", "2", "--anchors", "28", "--seed", "1", *options])
            self.assertEqual(words_behind(train, "-m"), [str(self.root / "model.gguf")])
            self.assertEqual(words_behind(train, "--data"), [str(self.root / "cache")])
            self.assertEqual(words_behind(train, "-o"), [str(self.out / name / "run")])
            self.assertEqual(words_behind(quantize, "--type"), ["q8_0"])
            self.assertEqual(words_behind(quantize, "--target"), [str(self.root / "model.gguf")])
            self.assertEqual(quantize[-2], str(self.out / name / "run" / "draft"))
            evals = [words for words, _ in calls if words[0] == "eval" and str(self.out / name / "dspark.gguf") in words]
            self.assertEqual([words_behind(words, "--temp") for words in evals], [["0"], ["1"]])
            for words in evals:
                self.assertIn("--no-hybrid", words)
                self.assertEqual(words_behind(words, "--limit") + words_behind(words, "-n"), ["5", "30"])
                self.assertEqual(words_behind(words, "--raw"), [str(self.root / file) for file in ("maths.jsonl", "code.jsonl")])
        lines = text.splitlines()
        self.assertEqual(lines[0], "| variant | parameters, M | steps | anchors, k | minutes | tau held out "
                                   "| maths, T=0 | code, T=0 | mean, T=0 | mean, T=1 |")
        self.assertEqual(lines[2], "| dspark | 1.00 | 2 | 1.2 | 1.5 | 1.750 | 2.00 | 3.00 | 2.50 | 2.00 |")
        self.assertIn("| dspark-3 | 3.00 | 2 | 1.2 | 1.5 | 1.750 | 2.00 | 3.00 | 2.50 | 2.00 |", lines)
        self.assertEqual(lines.count("| dflash-soft | 0.50 | - |"), 2)
        self.assertEqual((self.out / "variants.md").read_text(), text)
        report = json.loads((self.out / "variants.json").read_text())
        self.assertEqual([one["variant"] for one in report["variants"]], list(train_variants.VARIANTS))
        self.assertEqual(report["variants"][0]["eval"]["1"]["tasks"], {"maths": 1.5, "code": 2.5})
        self.assertEqual(report["settings"]["threads"], 2)

    def test_the_loss_of_dflash(self):
        reference, soft = train_variants.VARIANTS["dflash"], train_variants.VARIANTS["dflash-soft"]
        self.assertEqual(reference, [*soft, "--ce", "1", "--soft-ce", "0", "--l1", "0", "--confidence", "0"])

    def test_goes_on_where_it_was_cut_off(self):
        pair = ("--steps", "9", "--variants", "dspark,dflash")
        whole, calls = self.compare(*pair)
        self.assertEqual(len(calls), 6)
        self.assertEqual(self.compare(*pair), (whole, []), "what is there is not made again")
        text, calls = self.compare(*pair, "--temps", "0,1")
        self.assertEqual([words[0] for words, _ in calls], ["eval", "eval"])
        self.assertIn("mean, T=1", text)
        text, calls = self.compare("--steps", "9", "--variants", "dflash,dspark-rnn")
        self.assertEqual([words[0] for words, _ in calls], ["train", "quantize", "eval"])
        for cut_off in (f"train -m {self.root}", "quantize --type", "eval -m"):
            with self.subTest(cut_off):
                subprocess.run(["rm", "-r", str(self.out)], check=True)
                error, calls = self.compare(*pair, status=1, CUT_OFF=cut_off)
                self.assertIn(f"train_variants: error: dspark: dspark {cut_off.split()[0]}: cut off", error)
                self.assertTrue(" ".join(calls[-1][0]).startswith(cut_off), "nothing runs behind a step that failed")
                text, again = self.compare(*pair)
                self.assertEqual(text, whole)
                done = [words[:-1] for words, _ in calls[:-1]]
                self.assertFalse([words for words, _ in again if words[:-1] in done], "nothing is done twice")

    def test_interrupted_trainings_are_resumed(self):
        command = self.command("--minutes", "3", "--variants", "dspark,dflash")
        waits = Path(str(self.calls) + ".waits")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=self.environment(WAIT_IN=f"{self.out}/dspark/")) as script:
            end = time.monotonic() + 60 * SLOWDOWN
            while not waits.exists() and script.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            script.send_signal(signal.SIGTERM)
            error = script.communicate(timeout=60 * SLOWDOWN)[1]
        self.assertEqual(script.returncode, 130, error)
        self.assertIn("interrupted", error)
        self.assertEqual([words[0] for words, _ in self.said()], ["train"], "a training that was stopped is not done")
        _, calls = self.compare("--minutes", "3", "--variants", "dspark,dflash")
        self.assertEqual([words[0] for words, _ in calls], ["train", "train", "quantize", "quantize", "eval", "eval"])
        self.assertEqual([words[-1] == "--resume" for words, _ in calls[:2]], [True, False])

    def test_other_settings_are_refused(self):
        self.compare("--minutes", "2", "--variants", "dspark")
        for more, key in ((("--minutes", "3"), "minutes: this folder was begun with 2.0, found 3.0"),
                          (("--steps", "3"), "minutes"), (("--minutes", "2", "--threads", "2"), "threads"),
                          (("--minutes", "2", "--train-args", "--seed 2"), "train-args"),
                          (("--minutes", "2", "--limit", "3"), "limit")):
            error, calls = self.compare(*more, status=1)
            self.assertIn(f"settings.json: {key}", error)
            self.assertEqual(calls, [])
        error, _ = self.compare("--minutes", "2", prompts=("maths.jsonl",), status=1)
        self.assertIn("settings.json: prompts", error)

    def test_wrong_usage(self):
        for more, part in (((), "want either --minutes or --steps"), (("--minutes", "1", "--steps", "2"), "either"),
                           (("--steps", "0"), "more than 0"), (("--minutes", "nan"), "more than 0"),
                           (("--steps", "1", "--variants", "dspark,dsprak"), "found 'dsprak'"),
                           (("--steps", "1", "--variants", "dspark,dspark"), "twice"),
                           (("--steps", "1", "--temps", "0,hot"), "--temps"), (("--steps", "1", "--temps", "1,1"), "--temps"),
                           (("--steps", "1", "--threads", "0"), "--threads"),
                           (("--steps", "1", "--train-args", "--a 'b"), "--train-args"),
                           (("--steps", "1", "--dspark", "nowhere"), "nowhere does not exist"),
                           (("--steps", "1", "--parallel", "9999"), "want 9999 processors")):
            with self.subTest(more):
                error, calls = self.compare(*more, status=1)
                self.assertIn("train_variants: error: ", error)
                self.assertIn(part, error)
                self.assertEqual(calls, [])
        error, _ = self.compare("--steps", "1", prompts=("none.jsonl",), status=1)
        self.assertIn("none.jsonl does not exist", error)

    def test_runs_side_by_side_have_processors_of_their_own(self):
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest("one processor")
        text, calls = self.compare("--steps", "2", "--parallel", "2", "--variants", "dspark,dflash,dspark-2,dspark-3")
        self.assertEqual(text.count("\n| dspark-2 |"), 2)
        parts = [tuple(cpus) for words, cpus in calls if words[0] == "train"]
        self.assertEqual([len(part) for part in parts], [1] * 4)
        self.assertEqual(len(set(parts)), 2)

    def test_equal_parts(self):
        parts = train_variants.equal_parts
        self.assertEqual(parts([[0, 4], [1, 5], [2, 6], [3, 7]], 2, 2), [[0, 1], [2, 3]])
        self.assertEqual(parts([[0, 4], [1, 5], [2, 6], [3, 7]], 2, 4), [[0, 4, 1, 5], [2, 6, 3, 7]])
        self.assertEqual(parts([[0, 1]], 2, 1), [[0], [1]])
        self.assertEqual(parts([[0], [1], [2]], 3, 1), [[0], [1], [2]])
        for cores, n, threads in (([[0, 1], [2, 3]], 3, 1), ([[0, 1], [2, 3]], 5, 1), ([[0], [1]], 3, 1)):
            with self.assertRaises(SystemExit):
                parts(cores, n, threads)
        self.assertEqual({cpu for core in train_variants.cores() for cpu in core}, os.sched_getaffinity(0))

    @unittest.skipUnless(TRAINER.is_file(), "no dspark-train, which needs libtorch")
    def test_the_real_programs(self):
        lines = [{"task": task, "id": i, "prompt": f"the {task} number {i}"} for task in ("a", "b") for i in range(4)]
        for task in ("a", "b"):
            text = "".join(json.dumps(line) + "\n" for line in lines if line["task"] == task)
            (self.root / f"{task}.jsonl").write_text(text)
        prompts = [str(self.root / f"{task}.jsonl") for task in ("a", "b")]
        corpus, cache = str(self.root / "corpus.jsonl"), str(self.root / "features")
        self.succeed("data", "generate", "-m", self.chat_model, *prompts, "-o", corpus, "--max-tokens", "20", "--samples", "2",
                     "--temps", "0,0.9")
        self.succeed("data", "cache", "-m", self.chat_model, corpus, "-o", cache, "--layers", "0", "--log-sum-exp")
        command = [sys.executable, "-B", str(SCRIPT), "-m", self.chat_model, "--data", cache, "-o", str(self.out), "--quick",
                   "--dspark", BINARY, "--variants", ",".join(train_variants.VARIANTS), "--temps", "0,1", "--train-args",
                   "--block 3 --rank 4 --draft-vocab 64 --sequences 2 --anchors 4 --holdout 0.25 --no-warm-start", *prompts]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240 * SLOWDOWN,
                              env={**os.environ, "XDG_CACHE_HOME": str(self.path / "cache")})
        self.assertEqual(done.returncode, 0, done.stderr)
        for one in json.loads((self.out / "variants.json").read_text())["variants"]:
            self.assertEqual(one["steps"], 2, one)
            self.assertGreater(one["anchors"], 0, one)
            self.assertGreater(one["parameters"], 1000, one)
            for tau in (one["tau_prob"], one["eval"]["0"]["tau"], one["eval"]["1"]["tau"], *one["eval"]["0"]["tasks"].values()):
                self.assertTrue(1 <= tau <= 4, one)
            self.assertEqual(set(one["eval"]["0"]["tasks"]), {"a", "b"})


if __name__ == "__main__":
    unittest.main()
