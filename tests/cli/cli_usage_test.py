#!/usr/bin/env python3
"""Help, version, and what a wrong command line gets."""

import shutil
import subprocess
import unittest

from harness import BINARY, SLOWDOWN, Tool

COMMANDS = ("run", "bench", "inspect", "tokenize", "perplexity", "logits", "draft", "eval", "calibrate", "quantize")


class Usage(Tool):
    def test_help_names_every_command(self):
        text = self.succeed("--help").stdout
        for command in COMMANDS:
            self.assertIn(command, text)
            self.assertIn("Usage: dspark " + command, self.succeed(command, "--help").stdout)

    def test_version(self):
        self.assertRegex(self.succeed("--version").stdout, r"^dspark \d+\.\d+\.\d+ \((portable|avx2|avx512vnni|avx512) kernels\)\n$")

    def test_forced_instruction_set_is_the_one_that_runs(self):
        def version(isa):
            return subprocess.run([BINARY, "--version"], env={"DSPARK_ISA": isa}, capture_output=True, text=True,
                                  check=False)

        self.assertIn("(portable kernels)", version("portable").stdout)
        for isa in ("avx9", ""):
            answer = version(isa)
            self.assertEqual(answer.returncode, 2)
            self.assertRegex(answer.stderr, f"^dspark: error: DSPARK_ISA: this machine runs portable.*found '{isa}'\n$")

    def test_no_command(self):
        self.assertIn("no command", self.fail_with(2))

    def test_unknown_words_get_the_nearest_name(self):
        self.assertEqual(self.fail_with(2, "rnu"), "unknown command 'rnu'; did you mean 'run'?")
        self.assertEqual(self.fail_with(2, "run", "--tmep", "0"), "unknown option '--tmep'; did you mean '--temp'?")
        self.assertEqual(self.fail_with(2, "bench", "--repeat=3"),
                         "unknown option '--repeat'; did you mean '--repeats'?")
        self.assertIn("unknown option '--zzzzzzzz'; see", self.fail_with(2, "run", "--zzzzzzzz"))
        self.assertIn("does not take the argument 'word'", self.fail_with(2, "run", "-m", self.chat_model, "word"))

    def test_bad_values_name_the_option(self):
        self.assertIn("--temp", self.fail_with(2, "run", "--temp", "hot"))
        self.assertIn("--threads", self.fail_with(2, "run", "-t", "-3"))
        self.assertIn("--prompt", self.fail_with(2, "run", "-p"))

    def test_missing_model(self):
        self.assertIn("nope.gguf", self.fail_with(1, "run", "-m", "nope.gguf", "-p", "x"))
        # A copy elsewhere: the program looks for a default model in the clone it was built in.
        copy = shutil.copy(BINARY, self.path)
        self.assertIn("DSPARK_MODEL", self.fail_with(1, "run", "-p", "x", binary=copy))

    def test_not_a_model(self):
        path = self.path / "text.gguf"
        path.write_text("this is no model\n")
        self.assertIn("text.gguf", self.fail_with(1, "run", "-m", str(path), "-p", "x"))

    def test_full_disk_is_a_failure(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([BINARY, "run", "-m", self.chat_model, "-p", "x", "-n", "2", "--json"],
                                    stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
                                    timeout=120 * SLOWDOWN, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "dspark: error: standard output cannot be written\n")


if __name__ == "__main__":
    unittest.main()
