#!/usr/bin/env python3
"""`dspark run` with one prompt."""

import json
import unittest

from harness import Tool


class Run(Tool):
    def run_json(self, *arguments, **options):
        result = self.succeed("run", "--json", *arguments, **options)
        self.assertEqual(result.stderr, "")
        return json.loads(result.stdout)

    def test_prompt_sources_agree(self):
        flags = ("run", "-m", self.chat_model, "-n", "12", "--temp", "0", "--ignore-eos")
        by_flag = self.succeed(*flags, "-p", "hello there").stdout
        self.assertGreater(len(by_flag), 8)
        self.assertEqual(self.succeed(*flags, stdin="hello there\n").stdout, by_flag)
        (self.path / "prompt.txt").write_text("hello there\n")
        self.assertEqual(self.succeed(*flags, "-f", "prompt.txt").stdout, by_flag)
        environment = {"DSPARK_MODEL": self.chat_model}
        without_model = (*flags[:1], *flags[3:])
        self.assertEqual(self.succeed(*without_model, "-p", "hello there", environment=environment).stdout, by_flag)

    def test_statistics_line(self):
        flags = ("run", "-m", self.chat_model, "-n", "12", "--ignore-eos", "-p", "hello")
        line = self.succeed(*flags, "--seed", "5", "-d", "ngram").stderr
        self.assertRegex(line, r"^\[prompt \d+ tokens, [\d.]+ tok/s \| generated 12 tokens, [\d.]+ tok/s \| "
                               r"ngram drafts \d+ \(\d+ verified, \d+ accepted\), [\d.]+ tokens per step \| seed 5 "
                               r"\| length\]\n$")
        self.assertIn("speculation off", self.succeed(*flags, "--temp", "0").stderr)
        self.assertNotIn("seed", self.succeed(*flags, "--temp", "0").stderr)

    def test_json(self):
        answer = self.run_json("-m", self.chat_model, "-n", "40", "--temp", "0", "--ignore-eos", "-p", "hello",
                               "-d", "ngram", "--spec", "fixed:3")
        self.assertEqual(len(answer["tokens"]), 40)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["timings"]["generated_tokens"], 40)
        self.assertGreater(answer["timings"]["prompt_tokens"], 5)
        speculation = answer["speculation"]
        self.assertEqual((speculation["drafter"], speculation["policy"]), ("ngram", "fixed:3"))
        self.assertGreaterEqual(speculation["drafted"], speculation["verified"])
        self.assertGreaterEqual(speculation["verified"], speculation["accepted"])
        self.assertGreater(speculation["accepted"], 0)
        self.assertEqual(speculation["drafted"] - speculation["verified"], speculation["trimmed"])
        self.assertTrue(answer["text"])

    def test_speculation_does_not_change_the_text(self):
        for sampling in (("--temp", "0"), ("--temp", "1.2", "--seed", "3", "--repeat-penalty", "1.1")):
            flags = ("-m", self.chat_model, "-n", "64", "--ignore-eos", "-p", "abcabcabc", *sampling)
            plain = self.run_json(*flags)["tokens"]
            for more in (("-d", "ngram"), ("-d", "ngram", "--spec", "fixed:8", "-t", "2"),
                         ("-d", "ngram", "--spec", "off")):
                self.assertEqual(self.run_json(*flags, *more)["tokens"], plain, more)

    def test_seed(self):
        flags = ("-m", self.chat_model, "-n", "24", "--ignore-eos", "-p", "hello", "--temp", "1.5", "--min-p", "0")
        first = self.run_json(*flags)
        again = self.run_json(*flags, "--seed", str(first["seed"]))
        self.assertEqual(first["tokens"], again["tokens"])
        others = {tuple(self.run_json(*flags)["tokens"]) for _ in range(3)}
        self.assertGreater(len(others | {tuple(first["tokens"])}), 1)

    def test_template_and_raw(self):
        flags = ("-m", self.chat_model, "-n", "1", "--temp", "0", "-p", "hello")
        chat = self.run_json(*flags)["timings"]["prompt_tokens"]
        raw = self.run_json(*flags, "--raw")["timings"]["prompt_tokens"]
        system = self.run_json(*flags, "-sys", "be kind")["timings"]["prompt_tokens"]
        # <|im_start|>user\n + hello + <|im_end|>\n + <|im_start|>assistant\n; "he" is one token.
        self.assertEqual(chat - raw, (1 + 5) + (1 + 1) + (1 + 10))
        self.assertEqual(system - chat, (1 + 7) + 7 + (1 + 1))
        base = self.run_json("-m", self.base_model, *flags[2:])["timings"]["prompt_tokens"]
        self.assertEqual(base, raw)

    def test_stop_string(self):
        flags = ("-m", self.chat_model, "-n", "30", "--temp", "0", "--ignore-eos", "-p", "hello")
        text = self.run_json(*flags)["text"]
        stop = text[3:5]
        answer = self.run_json(*flags, "--stop", "not in there", "--stop", stop)
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(answer["text"], text[: text.index(stop)])

    def test_cache_types(self):
        for kind in ("bf16", "f32"):
            answer = self.run_json("-m", self.chat_model, "-n", "8", "-p", "hello", "-ctk", kind)
            self.assertLessEqual(len(answer["tokens"]), 8)
        self.assertIn("--kv-type", self.fail_with(1, "run", "-m", self.chat_model, "-p", "x", "--kv-type", "f64"))

    def test_cache_type_of_values_may_only_repeat_that_of_keys(self):
        flags = ("-m", self.chat_model, "-n", "8", "-p", "hello", "--temp", "0", "--ignore-eos")
        plain = self.run_json(*flags, "--kv-type", "f32")["tokens"]
        for more in (("-ctk", "f32", "-ctv", "f32"), ("--cache-type-v", "f32", "--cache-type-k", "f32")):
            self.assertEqual(self.run_json(*flags, *more)["tokens"], plain, more)
        self.run_json(*flags, "-ctv", "bf16")  # the default of both
        for more in (("-ctk", "q8_0", "-ctv", "f32"), ("-ctv", "f32", "-ctk", "q8_0"), ("-ctv", "q8_0")):
            message = self.fail_with(2, "run", *flags, *more)
            self.assertIn("--cache-type-v: keys and values have one type, and --kv-type (-ctk) says '", message)
        self.assertIn("says 'bf16', found 'q8_0'", message)
        serve = self.fail_with(2, "serve", "-m", self.chat_model, "-ctk", "f32", "-ctv", "bf16")
        self.assertIn("--cache-type-v: ", serve)

    def test_names_of_the_answer_length(self):
        for name in ("-n", "--n-predict", "--predict"):
            answer = self.run_json("-m", self.chat_model, name, "5", "-p", "hello", "--ignore-eos")
            self.assertEqual(len(answer["tokens"]), 5, name)

    def test_wrong_requests(self):
        model = ("run", "-m", self.chat_model)
        self.assertIn("no prompt", self.fail_with(1, *model, stdin=""))
        self.assertIn("exclude each other", self.fail_with(1, *model, "-p", "x", "-f", "y"))
        self.assertIn("no.txt", self.fail_with(1, *model, "-f", "no.txt"))
        self.assertIn("-d ngram", self.fail_with(1, *model, "-p", "x", "--spec", "fixed:4"))
        self.assertIn("--spec", self.fail_with(1, *model, "-p", "x", "-d", "ngram", "--spec", "fixed:x"))
        self.assertIn("eagle", self.fail_with(1, *model, "-p", "x", "-d", "eagle"))
        self.assertIn("top_p", self.fail_with(1, *model, "-p", "x", "--top-p", "-1").replace("-", "_"))
        self.assertIn("4096", self.fail_with(1, *model, "-p", "x" * 5000))
        self.assertIn("chat template", self.fail_with(1, "run", "-m", self.base_model, "-p", "x", "-sys", "y"))


if __name__ == "__main__":
    unittest.main()
