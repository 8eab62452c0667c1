#!/usr/bin/env python3
"""What `dspark run` shows while it works, and Ctrl-C during its one answer."""

import json
import re
import signal
import subprocess
import unittest

from harness import BINARY, SLOWDOWN, Tool
from terminal import CTRL_C, Terminal

ERASE = "\r\x1b[K"
INTERRUPTED = 130
ENDLESS = ("--temp", "0", "--ignore-eos", "-c", "0", "-n", "60000")


class Progress(Tool):
    def long_prompt(self, n_characters):
        path = self.path / f"long-{n_characters}.txt"
        path.write_text("some words of it, " * (n_characters // 18))
        return ("-f", str(path), "-c", "0")

    def run_on_terminal(self, *arguments, term="xterm"):
        terminal = Terminal("run", "-m", self.chat_model, "--temp", "0", "--ignore-eos", "-n", "4", *arguments, term=term)
        text = terminal.expect(r"generated 4 tokens.*\]")
        self.assertEqual(terminal.close(), 0)
        return text

    def test_stages_of_loading(self):
        text = self.run_on_terminal("-p", "hello")
        for stage in ("reading", "tokenizer", "packing weights"):
            self.assertIn(f"{ERASE}loading chat.gguf: {stage}", text)
        # The last one is erased before anything else is written.
        self.assertRegex(text, r"packing weights\r\x1b\[K")
        self.assertNotIn("reading the prompt", text)  # too short to be worth a line

    def test_long_prompts_tell_how_far_they_are(self):
        text = self.run_on_terminal(*self.long_prompt(2000))
        steps = [(int(done), int(total)) for done, total in re.findall(r"reading the prompt: (\d+) of (\d+) tokens", text)]
        self.assertGreater(len(steps), 5)
        total = steps[0][1]
        self.assertGreater(total, 1900)
        self.assertEqual({whole for _, whole in steps}, {total})
        self.assertEqual(sorted(steps), steps)
        self.assertLess(steps[-1][0], total)
        after = text[text.rindex("reading the prompt"):]
        self.assertRegex(after, r"^reading the prompt: \d+ of \d+ tokens\r\x1b\[K")

    def test_no_progress_lines_elsewhere(self):
        prompt = self.long_prompt(2000)
        # Greedy: what the model samples is seldom UTF-8, and a pipe gets its bytes as they are.
        piped = self.succeed("run", "-m", self.chat_model, "-n", "4", "--temp", "0", "--ignore-eos", *prompt)
        self.assertRegex(piped.stderr, r"^\[prompt [^\n]*\]\n$")
        self.assertEqual(self.succeed("run", "--json", "-m", self.chat_model, "-n", "4", *prompt).stderr, "")
        dumb = self.run_on_terminal(*prompt, term="dumb")  # cannot erase a line
        for word in ("loading", "reading the prompt", "\x1b"):
            self.assertNotIn(word, dumb)


class Interrupt(Tool):
    def start(self, *arguments):
        return subprocess.Popen([BINARY, "run", "-m", self.chat_model, *ENDLESS, *arguments], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, cwd=self.path)

    def test_the_text_so_far_and_its_statistics_are_told(self):
        program = self.start("-p", "hello")
        try:
            first = program.stdout.read(1)  # the answer has begun
            program.send_signal(signal.SIGINT)
            rest, errors = program.communicate(timeout=60 * SLOWDOWN)
        finally:
            program.kill()
        self.assertEqual(program.returncode, INTERRUPTED)
        text = (first + rest).decode("utf-8", "replace")
        self.assertTrue(text.endswith("\n"))
        line = re.fullmatch(r"\[prompt \d+ tokens.* \| generated (\d+) tokens.* \| cancelled\]\n", errors.decode())
        self.assertIsNotNone(line, errors)
        self.assertGreaterEqual(int(line[1]), 1)
        self.assertLess(int(line[1]), 60000)

    def test_ctrl_c_on_a_terminal(self):
        terminal = Terminal("run", "-m", self.chat_model, *ENDLESS, "-p", "hello")
        terminal.expect(r"packing weights\r\x1b\[K")
        terminal.expect(r"\w{3}")
        terminal.send(CTRL_C)
        terminal.expect(r"generated \d+ tokens[^\n]*cancelled\]")
        self.assertEqual(terminal.close(), INTERRUPTED)

    def test_ctrl_c_while_the_prompt_is_read(self):
        path = self.path / "prompt.txt"
        path.write_text("words " * 3000)
        terminal = Terminal("run", "-m", self.chat_model, *ENDLESS, "-n", "8", "--json", "-f", str(path))
        terminal.expect(r"reading the prompt: \d+ of")
        terminal.send(CTRL_C)
        shown = terminal.expect(r"\{\"text\".*\}\}\r\n")
        self.assertEqual(terminal.close(), INTERRUPTED)
        answer = json.loads(shown[shown.index('{"text"'):])
        self.assertEqual(answer["finish_reason"], "cancelled")
        self.assertLess(len(answer["tokens"]), 8)


if __name__ == "__main__":
    unittest.main()
