"""scripts/train-drafter with a program that only writes down how it was called: for every recipe, and cut off in each
of its steps.
usage: train_script_test.py SOURCE_DIR"""
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = sys.argv[1]

# Writes what the real commands leave behind; fails as if cut off when it is told to, before anything is complete.
PROGRAM = """#!/bin/sh
echo "$*" >>"$CALLS"
[ "$1 $2" = "$CUT_OFF" ] && exit 130
out=
previous=
for word; do
  [ "$previous" = -o ] && out=$word
  previous=$word
done
case $1 in
  data) case $2 in cache) [ ! -f "$out/manifest.json" ] || exit 1; mkdir -p "$out"; touch "$out/manifest.json" ;; *) for task in $CORPUS_TASKS; do echo "{\\"id\\": \\"$task/0#1\\", \\"conversations\\": [{\\"content\\": \\"!\\"}]}"; done >"$out" ;; esac ;;
  train) mkdir -p "$out"; touch "$out/state.safetensors"; echo step >"$out/log.csv" ;;
  quantize) touch "$3" ;;
  calibrate) echo '{}' >"$out" ;;
esac
"""


class TrainScript(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dspark-script-")
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        os.makedirs(f"{self.root}/scripts")
        shutil.copy(f"{SOURCE}/scripts/train-drafter", f"{self.root}/scripts")
        self.names = [n for n in sorted(os.listdir(f"{SOURCE}/drafters"))
                      if os.path.exists(f"{SOURCE}/drafters/{n}/recipe")]
        for name in self.names:
            os.makedirs(f"{self.root}/drafters/{name}")
            shutil.copy(f"{SOURCE}/drafters/{name}/recipe", f"{self.root}/drafters/{name}")
        with open(f"{self.root}/dspark", "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        os.chmod(f"{self.root}/dspark", 0o755)
        os.makedirs(f"{self.root}/prompts")
        # The program's corpus has an answer to prompt 0 of every task.
        self.tasks = sorted({task for name in self.names for task in self.recipe(name)["TASKS"].split()})
        for task in self.tasks:
            self.write_prompts(task, 17)
        os.makedirs(f"{self.root}/models")

    def write_prompts(self, task, count):
        with open(f"{self.root}/prompts/{task}.jsonl", "w", encoding="utf-8") as file:
            for i in range(count):
                file.write(json.dumps({"task": task, "id": i, "prompt": "?"}) + "\n")

    def recipe(self, name):
        with open(f"{SOURCE}/drafters/{name}/recipe", encoding="utf-8") as file:
            lines = [line.strip().split("=", 1) for line in file if "=" in line and not line.startswith("#")]
        return {key: value.strip('"') for key, value in lines}

    def call(self, name, cut_off="", prompts=True, more=()):
        """The commands that the script ran, and whether it ended well."""
        calls = f"{self.root}/calls"
        open(calls, "w", encoding="utf-8").close()
        open(f"{self.root}/models/{self.recipe(name)['MODEL']}", "w", encoding="utf-8").close()
        command = [f"{self.root}/scripts/train-drafter", name, "--minutes", "7", *more]
        if prompts:
            command += ["--prompts", f"{self.root}/prompts"]
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(
            os.environ, DSPARK=f"{self.root}/dspark", DSPARK_MODELS=f"{self.root}/models", CALLS=calls, CUT_OFF=cut_off, CORPUS_TASKS=" ".join(self.tasks)))
        with open(calls, encoding="utf-8") as file:
            return [line.split() for line in file], result.returncode

    def test_every_recipe_runs_all_steps(self):
        self.assertIn("gemma-3-270m", self.names)
        for name in self.names:
            with self.subTest(name):
                recipe = self.recipe(name)
                calls, code = self.call(name)
                self.assertEqual(code, 0)
                varied = ["data"] if "VARY" in recipe else []
                self.assertEqual([c[0] for c in calls], ["data"] * 3 + ["train", "quantize"] + varied + ["calibrate"])
                self.assertEqual([c[1] for c in calls[:3]], ["generate", "filter", "cache"])
                self.assertIn(recipe["GENERATE"], " ".join(calls[0]))
                self.assertIn("--layers " + recipe["LAYERS"] + " --log-sum-exp", " ".join(calls[2]))
                self.assertIn("--minutes 7", " ".join(calls[3]))
                self.assertNotIn("--resume", calls[3])
                raw = "--raw" in recipe["GENERATE"]
                self.assertEqual("--raw" in calls[-1], raw, "prompts are calibrated on as they are answered")
                tasks = recipe["TASKS"].split()
                if varied:
                    self.assertIn("--samples 0 --variations " + recipe["VARY"], " ".join(calls[5]))
                for call, folder in ((calls[0], "/prompts/"), (calls[-1], "/unseen/")):
                    self.assertEqual([os.path.basename(w) for w in call if w.endswith(".jsonl") and folder in w],
                                     [task + ".jsonl" for task in tasks])
                for task in tasks:
                    with open(f"{self.root}/data/{name}/prompts/{task}.jsonl", encoding="utf-8") as file:
                        self.assertEqual([json.loads(line)["id"] for line in file], list(range(13)),
                                         "the last four are kept back for the calibration")
                    with open(f"{self.root}/data/{name}/unseen/{task}.jsonl", encoding="utf-8") as file:
                        ids = [json.loads(line)["id"] for line in file]
                        self.assertEqual(ids, [*range(1, 17), *(["varied-0#1"] if varied else [])])

    def test_goes_on_where_it_was_cut_off(self):
        name = "gemma-3-270m"
        first = ["data generate", "data filter", "data cache", f"train -m", f"quantize data/{name}/run/draft"]
        for cut_off in first:
            with self.subTest(cut_off):
                shutil.rmtree(f"{self.root}/data", ignore_errors=True)
                calls, code = self.call(name, cut_off)
                self.assertNotEqual(code, 0)
                self.assertEqual(" ".join(calls[-1][:2]), cut_off, "nothing runs behind a step that failed")
                calls, code = self.call(name)
                self.assertEqual(code, 0)
                # A finished cache is left alone: the program refuses it.
                self.assertEqual(" ".join(calls[0][:2]),
                                 first[0] if cut_off in first[:2] else first[2] if cut_off == first[2] else first[3])
                self.assertEqual("--resume" in calls[-3], cut_off.startswith("quantize"))

    def test_a_finished_corpus_needs_no_prompts(self):
        self.call("gemma-3-270m")
        calls, code = self.call("gemma-3-270m", prompts=False)
        self.assertEqual(code, 0)
        self.assertEqual([c[0] for c in calls], ["train", "quantize"])

    def test_calibrates_on_all_prompts_when_none_is_left(self):
        for task in self.tasks:
            self.write_prompts(task, 4)  # three that were not answered are too few
        calls, code = self.call("gemma-3-270m")
        self.assertEqual(code, 0)
        self.assertEqual(len([w for w in calls[-1] if "/prompts/" in w]), len(self.recipe("gemma-3-270m")["TASKS"].split()))

    def test_a_shipped_corpus_is_used(self):
        name = "smollm2-135m-instruct"
        with gzip.open(f"{self.root}/drafters/{name}/corpus.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write('{"id": "shipped/0#0"}\n')
        calls, code = self.call(name, prompts=False)
        self.assertEqual(code, 0)
        self.assertEqual(calls[0][:2], ["data", "cache"])
        with open(f"{self.root}/data/{name}/corpus.jsonl", encoding="utf-8") as file:
            self.assertEqual(file.read(), '{"id": "shipped/0#0"}\n')
        shutil.rmtree(f"{self.root}/data")
        calls, code = self.call(name, more=["--new-corpus"])
        self.assertEqual(code, 0)
        self.assertEqual(calls[0][:2], ["data", "generate"])

    def test_continues_the_shipped_drafter(self):
        name = "smollm2-135m-instruct"
        shipped = f"{self.root}/drafters/{name}/dspark.gguf"
        calls, code = self.call(name, more=["--continue"])
        self.assertNotEqual(code, 0, "there is none yet")
        self.assertNotIn("train", [c[0] for c in calls])
        with open(shipped, "w", encoding="utf-8") as file:
            file.write("first")
        calls, code = self.call(name, f"quantize data/{name}/onwards/draft", more=["--continue"])
        self.assertNotEqual(code, 0)
        with open(shipped, "w", encoding="utf-8") as file:
            file.write("another")
        with open(f"{self.root}/data/{name}/init.gguf", encoding="utf-8") as file:
            self.assertEqual(file.read(), "first", "a run goes on from where it began")
        calls, code = self.call(name, more=["--continue"])
        self.assertEqual(code, 0)
        train = " ".join(next(c for c in calls if c[0] == "train"))
        self.assertIn(self.recipe(name)["CONTINUE"], train)
        self.assertIn(f"--init data/{name}/init.gguf", train)
        self.assertIn("--resume", train)
        calls, code = self.call(name, more=["--continue"])
        self.assertEqual(code, 0)
        self.assertNotIn("--resume", next(c for c in calls if c[0] == "train"), "another run, from the new drafter")

    def test_a_missing_prompt_file_ends_it_at_once(self):
        os.remove(f"{self.root}/prompts/gsm8k.jsonl")
        calls, code = self.call("gemma-3-270m")
        self.assertNotEqual(code, 0)
        self.assertEqual(calls, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
