#!/usr/bin/env python3
"""`dspark eval` and `dspark calibrate` on a tiny model with a tiny drafter."""

import json
import re
import unittest
import xml.dom.minidom
from pathlib import Path

from harness import Tool
from tiny_drafter import write_tiny_drafter

PROMPTS = {
    "letters": ["hello there", "abcabcabc abcabc", "the quick brown fox", "zzzz zzzz zzzz"],
    "other": ["one two one two one two", "a"],
}


class Drafted(Tool):
    """The tiny models with a tiny drafter and prompt files."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.drafter = write_tiny_drafter(cls.path / "drafter")
        cls.unsure = write_tiny_drafter(cls.path / "unsure", confidence=False)
        cls.files = []
        for task, prompts in PROMPTS.items():
            path = cls.path / f"{task}.jsonl"
            path.write_text("".join(json.dumps({"task": task, "id": i, "prompt": prompt}) + "\n"
                                    for i, prompt in enumerate(prompts)))
            cls.files.append(str(path))


class Eval(Drafted):
    def evaluate(self, *arguments):
        result = self.succeed("eval", "-m", self.chat_model, "-n", "30", "--json", "out.json", *arguments, *self.files)
        return json.loads((self.path / "out.json").read_text()), result.stdout

    def check_counters(self, group, block):
        self.assertEqual(group["drafted"], group["rounds"] * block)
        self.assertEqual(group["verified"] + group["trimmed"], group["drafted"])
        self.assertGreaterEqual(group["verified"], group["accepted"])
        self.assertGreaterEqual(group["tokens_per_step"], 1.0)
        self.assertLessEqual(group["tokens_per_step"], block + 1)

    def test_counts_and_tables(self):
        report, text = self.evaluate("-d", self.drafter)
        self.assertEqual([task["task"] for task in report["tasks"]], ["letters", "other"])
        self.assertEqual([task["all"]["answers"] for task in report["tasks"]], [4, 2])
        self.assertEqual((report["policy"], report["accept_rule"], report["kind"]), ("fixed:64", "coupled", "dspark"))
        for task in report["tasks"]:
            self.check_counters(task["all"], 4)
            calibration = task["all"]["calibration"]
            self.assertEqual(len(calibration["positions"]), 4)
            # Every round tells about every position, but for one that a stop token cut.
            for position in calibration["positions"]:
                self.assertLessEqual(position["count"], task["all"]["rounds"])
                self.assertGreaterEqual(position["count"], task["all"]["rounds"] - task["all"]["answers"])
                self.assertGreaterEqual(position["ece"], 0)
        taus = [task["all"]["tokens_per_step"] for task in report["tasks"]]
        self.assertAlmostEqual(report["macro"]["tau"], sum(taus) / 2)
        total = report["total"]
        self.assertEqual(total["rounds"], sum(task["all"]["rounds"] for task in report["tasks"]))
        for word in ("letters", "other", "macro", "survival", "conditional", "calibration", "ECE", "tau"):
            self.assertIn(word, text)
        self.assertRegex(text, rf"letters +4 +\d+ +{taus[0]:.2f} ")

    def test_rounds_of_the_reference_loop(self):
        # Anchors run from the prompt's own token to the last before the limit: each round brings one token more
        # than it accepts, and the last one is not cut.
        report, _ = self.evaluate("-d", self.drafter, "--limit", "1", "-n", "1")
        for task in report["tasks"]:
            self.assertEqual(task["all"]["answers"], 1)
            self.assertLessEqual(task["all"]["rounds"], 1)
            self.assertLessEqual(task["all"]["tokens"], 1)

    def test_answers_depend_on_neither_drafter_nor_batch(self):
        plain, _ = self.evaluate()
        for more in (("-d", self.drafter), ("-d", self.drafter, "--batch", "1"), ("-d", "ngram", "--batch", "3"),
                     ("-d", self.drafter, "--spec", "threshold:0.5")):
            report, _ = self.evaluate(*more)
            self.assertEqual([task["all"]["tokens"] for task in report["tasks"]],
                             [task["all"]["tokens"] for task in plain["tasks"]], more)
            self.assertEqual([task["looping"] for task in report["tasks"]],
                             [task["looping"] for task in plain["tasks"]], more)
        self.assertEqual(plain["macro"]["tau"], 1.0)
        self.assertEqual(plain["kind"], "none")

    def test_batch_does_not_change_rounds(self):
        for rule in ("coupled", "rejection", "block"):
            one, _ = self.evaluate("-d", self.drafter, "--temp", "1", "--accept", rule, "--batch", "1")
            six, _ = self.evaluate("-d", self.drafter, "--temp", "1", "--accept", rule, "--batch", "6")
            self.assertEqual(one["accept_rule"], rule)
            self.assertEqual(one["total"]["rounds"], six["total"]["rounds"], rule)
            self.assertEqual(one["tasks"][0]["all"], six["tasks"][0]["all"], rule)

    def test_baseline_and_plots(self):
        report, text = self.evaluate("-d", self.drafter, "--baseline", "ngram", "--plots", "plots")
        self.assertEqual(report["baseline"], "ngram")
        self.assertIn("ngram", text.splitlines()[3])
        for task in report["tasks"]:
            self.assertGreaterEqual(task["baseline"]["all"]["tokens_per_step"], 1.0)
        for name in ("survival", "conditional", "reliability"):
            svg = (self.path / "plots" / f"{name}.svg").read_text()
            document = xml.dom.minidom.parseString(svg)
            self.assertEqual(document.documentElement.tagName, "svg")
            self.assertTrue(document.getElementsByTagName("polyline"))
            self.assertNotRegex(svg, "nan|inf|href")
        survival = (self.path / "plots" / "survival.svg").read_text()
        for word in ("letters", "other", "mean of tasks", "ngram"):
            self.assertIn(word, survival)

    def test_trimming_hides_calibration(self):
        report, text = self.evaluate("-d", self.drafter, "--spec", "threshold:0.6", "--plots", "trimmed")
        self.assertGreater(report["total"]["trimmed"], 0)
        self.assertNotIn("calibration", report["total"])
        self.assertNotIn("calibration", text)
        self.assertFalse((self.path / "trimmed" / "reliability.svg").exists())

    def test_no_confidence_head(self):
        report, _ = self.evaluate("-d", self.unsure)
        self.assertNotIn("calibration", report["total"])
        self.assertEqual(report["total"]["trimmed"], 0)

    def test_calibrate(self):
        result = self.succeed("calibrate", "-m", self.chat_model, "-d", self.drafter, "-n", "30", "-o", "sts.json",
                              *self.files)
        self.assertIn("temperature", result.stdout)
        fit = json.loads((self.path / "sts.json").read_text())
        self.assertEqual(len(fit["temperatures"]), 4)
        self.assertEqual((fit["dataset"], fit["accept_rule"], fit["temperature"]), ("letters, other", "coupled", 0.0))
        # Only the first position is sure to gain: the fit of the others starts from changed ones before them.
        self.assertLessEqual(fit["ece_after"][0], fit["ece_before"][0] + 1e-9)
        before, _ = self.evaluate("-d", self.drafter)
        after, _ = self.evaluate("-d", self.drafter, "--calibration", "sts.json")
        self.assertEqual(before["total"]["rounds"], fit["num_samples"])
        for k in range(4):
            ece = [run["total"]["calibration"]["positions"][k]["ece"] for run in (before, after)]
            self.assertAlmostEqual(ece[0], fit["ece_before"][k], places=4)
            self.assertAlmostEqual(ece[1], fit["ece_after"][k], places=4)
        self.assertNotEqual(before["total"]["calibration"], after["total"]["calibration"])

    def test_calibrate_without_a_name_writes_where_runs_look(self):
        folder = Path(write_tiny_drafter(self.path / "to_calibrate"))
        flags = ("-m", self.chat_model, "-n", "30", *self.files)
        self.assertIn(str(folder / "calibration.json"), self.succeed("calibrate", "-d", str(folder), *flags).stdout)
        written = (folder / "calibration.json").read_text()
        self.succeed("calibrate", "-d", str(folder), "-o", "named.json", *flags)  # starts from the raw head again
        self.assertEqual(written, (self.path / "named.json").read_text())
        plain, _ = self.evaluate("-d", str(folder), "--calibration", "none")
        found, _ = self.evaluate("-d", str(folder))
        named, _ = self.evaluate("-d", str(folder), "--calibration", "named.json")
        self.assertEqual(found["total"]["calibration"], named["total"]["calibration"])
        self.assertNotEqual(found["total"]["calibration"], plain["total"]["calibration"])

    def test_tables_for_several_ways_of_serving(self):
        def fit(*more):
            return self.succeed("calibrate", "-m", self.chat_model, "-d", self.drafter, "-n", "30", "-o", "both.json",
                                *more, *self.files)

        def confidences(name, *more):
            return self.evaluate("-d", self.drafter, "--calibration", name, *more)[0]["total"]["calibration"]

        fit()
        greedy = json.loads((self.path / "both.json").read_text())
        self.assertIn("(2 tables)", fit("--temp", "1").stdout)
        both = json.loads((self.path / "both.json").read_text())
        self.assertEqual(both["tables"][0], greedy)
        self.assertEqual([table["temperature"] for table in both["tables"]], [0.0, 1.0])
        fit("--temp", "1", "--fit", "temperature")  # replaces its own table and no other
        again = json.loads((self.path / "both.json").read_text())["tables"]
        self.assertEqual(again[0], greedy)
        self.assertEqual(len(again), 2)
        self.assertNotIn("biases", again[1])
        # Every run takes the table that was made for it, as if it were alone in the file.
        (self.path / "greedy.json").write_text(json.dumps(again[0]))
        (self.path / "sampled.json").write_text(json.dumps(again[1]))
        self.assertEqual(confidences("both.json"), confidences("greedy.json"))
        sampled = ("--temp", "1")
        self.assertEqual(confidences("both.json", *sampled), confidences("sampled.json", *sampled))
        self.assertNotEqual(confidences("both.json", *sampled), confidences("greedy.json", *sampled))
        # What is no calibration is not overwritten.
        (self.path / "notes.json").write_text('{"notes": 1}')
        self.assertIn("notes", self.fail_with(1, "calibrate", "-m", self.chat_model, "-d", self.drafter, "-o", "notes.json",
                                              *self.files))
        self.assertEqual((self.path / "notes.json").read_text(), '{"notes": 1}')

    def test_calibration_files_that_are_wrong(self):
        flags = ("run", "-m", self.chat_model, "-p", "x", "-n", "2", "-d", self.drafter, "--calibration")
        for text, part in (("{", "sts_bad.json"), ("[]", "object"), ("{}", "temperatures"),
                           ('{"temperatures": [1, -2]}', r"temperatures\[1\]"),
                           ('{"temperatures": [1e400]}', "sts_bad.json"),
                           ('{"temperatures": []}', "at least one"),
                           ('{"temperatures": "1"}', "list"), ('{"temperatures": [1], "hats": 2}', "hats"),
                           ('{"temperatures": [1], "accept_rule": "luck"}', "luck"),
                           ('{"tables": []}', "tables"), ('{"tables": {}}', "tables"), ('{"tables": [3]}', r"tables\[0\]"),
                           ('{"tables": [{"temperatures": [1]}, {"temperatures": []}]}', r"tables\[1\].*at least one"),
                           ('{"tables": [{"temperatures": [1]}], "hats": 2}', "tables|hats")):
            (self.path / "sts_bad.json").write_text(text)
            self.assertRegex(self.fail_with(1, *flags, "sts_bad.json"), part)
        self.assertIn("nowhere.json", self.fail_with(1, *flags, "nowhere.json"))
        (self.path / "fine.json").write_text('{"temperatures": [1.5]}')
        without_head = (*flags[:-3], "-d", self.unsure, "--calibration", "fine.json")
        self.assertIn("confidence head", self.fail_with(1, *without_head))
        self.assertIn("-d PATH", self.fail_with(1, *flags[:-3], "--calibration", "fine.json"))

    def test_errors(self):
        base = ("eval", "-m", self.chat_model, "-n", "4")
        self.assertIn("prompts", self.fail_with(2, *base))
        self.assertIn("nothing.jsonl", self.fail_with(1, *base, "nothing.jsonl"))
        (self.path / "broken.jsonl").write_text('{"task": "t", "id": 1, "prompt": "x"}\n{"task": "t"}\n')
        self.assertRegex(self.fail_with(1, *base, "broken.jsonl"), "broken.jsonl.*2.*prompt")
        (self.path / "empty.jsonl").write_text("\n")
        self.assertIn("no prompts", self.fail_with(1, *base, "empty.jsonl"))
        self.assertIn("another task", self.fail_with(1, *base, self.files[0], self.files[0]))
        self.assertIn("--temp", self.fail_with(1, *base, "--temp", "-1", *self.files))
        self.assertIn("--batch", self.fail_with(2, *base, "--batch", "0", *self.files))
        self.assertIn("--baseline", self.fail_with(1, *base, "--baseline", "nobody", *self.files))
        self.assertIn("context", self.fail_with(1, *base[:-1], "70000", *self.files))
        other = write_tiny_drafter(self.path / "other_target", vocab=300)
        self.assertRegex(self.fail_with(1, *base, "-d", other, *self.files), "300")
        self.assertIn("--output", self.fail_with(1, "calibrate", "-m", self.chat_model, "-d", "bundled", *self.files))
        calibrate = ("calibrate", "-m", self.chat_model, "-n", "4", "-o", "no.json")
        self.assertIn("--drafter", self.fail_with(1, *calibrate, *self.files))
        self.assertIn("confidence head", self.fail_with(1, *calibrate, "-d", self.unsure, *self.files))
        self.assertIn("--spec", self.fail_with(1, *calibrate, "-d", self.drafter, "--spec", "threshold:0.3",
                                               *self.files))
        self.assertFalse((self.path / "no.json").exists())


class RunWithDrafter(Drafted):
    """`dspark run` with the same drafter."""

    def run_json(self, *arguments):
        return json.loads(self.succeed("run", "-m", self.chat_model, "--json", "-n", "48", "--ignore-eos", "-p",
                                       "abcabcabc", *arguments).stdout)

    def test_text_is_that_of_plain_decoding(self):
        for sampling in (("--temp", "0"), ("--temp", "1.1", "--seed", "3")):
            plain = self.run_json(*sampling)["tokens"]
            for more in ((), ("--spec", "fixed:1"), ("--spec", "threshold:0.5"), ("-t", "2", "--shortlist", "16")):
                answer = self.run_json(*sampling, "-d", self.drafter, *more)
                self.assertEqual(answer["tokens"], plain, more)
                self.assertEqual(answer["speculation"]["drafter"], "dspark+ngram")
            alone = self.run_json(*sampling, "-d", self.drafter, "--no-hybrid")
            self.assertEqual((alone["tokens"], alone["speculation"]["drafter"]), (plain, "dspark"))
        self.assertEqual(self.run_json("-d", self.drafter)["speculation"]["policy"], "adaptive")

    def test_greedy_text_whatever_the_rule(self):
        plain = self.run_json("--temp", "0")["tokens"]
        for rule in ("rejection", "block"):
            answer = self.run_json("--temp", "0", "-d", self.drafter, "--accept", rule)
            self.assertEqual(answer["tokens"], plain)
            self.assertEqual(answer["speculation"]["accept_rule"], rule)

    def test_view_of_drafts(self):
        flags = ("run", "-m", self.chat_model, "-n", "48", "--temp", "0", "--ignore-eos", "-p", "abcabcabc", "-d",
                 self.drafter, "--spec", "threshold:0.4", "--show-drafts")
        text = self.succeed(*flags[:-1]).stdout
        shown = self.succeed(*flags).stdout
        lines = shown.split("\n")
        self.assertEqual(lines[0], "drafts: [accepted] [=looked up=] <correction> (bonus) {-rejected-} {~trimmed~}")
        self.assertRegex(shown, r"\d+ rounds: [\d.]+ tokens per round")
        self.assertRegex(shown, r"\d+ drafted, [1-9]\d* trimmed")
        body = "\n".join(lines[1:]).rsplit("\n", 7)[0]
        kept = re.sub(r"\{-.*?-\}|\{~.*?~\}", "", body, flags=re.DOTALL)
        kept = re.sub(r"\[=|=\]|[\[\]<>()]", "", kept)
        self.assertTrue(kept.startswith(text.rstrip("\n")[:20]), (kept, text))
        coloured = self.succeed(*flags, "--color").stdout
        self.assertIn("\033[90;9m", coloured)
        self.assertNotIn("{~", coloured)
        self.assertEqual(self.succeed(*flags, "--color=never").stdout, shown)

    def test_wrong_words(self):
        run = ("run", "-m", self.chat_model, "-p", "x", "-d", self.drafter)
        self.assertIn("--accept", self.fail_with(1, *run, "--accept", "luck"))
        self.assertIn("threshold", self.fail_with(1, *run, "--spec", "threshold:2"))
        self.assertIn("--color", self.fail_with(1, *run, "--color=blue"))
        self.assertIn("exclude", self.fail_with(1, *run, "--json", "--show-drafts"))
        self.assertIn("needs a drafter", self.fail_with(1, *run[:-2], "--spec", "threshold:0.5"))
        self.assertRegex(self.fail_with(1, *run[:-1], self.chat_model), "chat.gguf")
        self.assertRegex(self.fail_with(1, *run[:-1], "nowhere"), "--drafter.*nowhere")


if __name__ == "__main__":
    unittest.main()
