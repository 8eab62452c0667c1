#!/usr/bin/env python3
"""The conversation of `dspark run`, on a pseudo-terminal."""

import re
import unittest

from harness import Tool
from terminal import CTRL_C, CTRL_D, UP, Terminal

PROMPT = "> "


class Chat(Tool):
    def start(self, *more, model=None):
        terminal = Terminal("run", "-m", model or self.chat_model, "--temp", "0", "--ignore-eos", "-n", "12", *more)
        terminal.expect(r"/help for help")
        terminal.expect(PROMPT)
        return terminal

    def test_answers_and_quits(self):
        terminal = self.start("-v")
        terminal.send("hello\r")
        terminal.expect(r"\[prompt \d+ tokens.*generated 12 tokens")
        terminal.expect(PROMPT)
        terminal.send("/stats\r")
        terminal.expect(r"generated 12 tokens")
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_conversation_grows_and_resets(self):
        terminal = self.start("-v")
        counts = []
        for message in ("hello", "hello", "/reset", "hello"):
            terminal.send(message + "\r")
            if message == "/reset":
                terminal.expect("starts anew")
                continue
            counts.append(int(re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]))
        self.assertGreater(counts[1], counts[0] + 12)
        self.assertEqual(counts[2], counts[0])
        terminal.send(CTRL_D)
        self.assertEqual(terminal.close(), 0)

    def test_several_lines_are_one_message(self):
        terminal = self.start("-v")
        terminal.send("one\\\rtwo\r")
        first = re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]
        terminal.send("/reset\r")
        terminal.send('"""one\rtwo\r"""\r')
        second = re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]
        self.assertEqual(first, second)
        terminal.send("/reset\r")
        terminal.expect("starts anew")
        terminal.send(b"\x1b[200~one\rtwo\x1b[201~\r")  # a paste
        third = re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]
        self.assertEqual(first, third)
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_editing_and_history(self):
        terminal = self.start("-v")
        terminal.send("ello\x01h\r")  # Ctrl-A, then the missing letter
        first = re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]
        terminal.send("/reset\r")
        terminal.expect("starts anew")
        terminal.send(UP + UP + b"\r")  # /reset, then hello
        again = re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]
        self.assertEqual(first, again)
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_interrupt_stops_the_answer_only(self):
        terminal = self.start("-n", "60000", "-c", "0", "-v")
        terminal.send("hello\r")
        terminal.expect(r"\r\n")
        terminal.expect(r"\w{3}")  # the answer has begun
        terminal.send(CTRL_C)
        seen = terminal.expect(r"cancelled\]")
        terminal.expect(PROMPT)
        terminal.send("/stats\r")
        terminal.expect(r"generated \d+ tokens")
        terminal.send(CTRL_C)
        terminal.expect(r"once more")
        terminal.send(CTRL_C)
        self.assertEqual(terminal.close(), 0)
        self.assertIn("generated", seen)

    def test_what_is_typed_during_an_answer_is_kept(self):
        terminal = self.start("-v")
        terminal.send("hello\rhello\r")
        terminal.expect(r"generated 12 tokens")
        terminal.expect(r"generated 12 tokens")
        terminal.send(b"hello\r" + CTRL_D)
        terminal.expect(r"generated 12 tokens")
        self.assertEqual(terminal.close(), 0)

    def test_unknown_command_and_help(self):
        terminal = self.start()
        terminal.send("/rset\r")
        terminal.expect(r"did you mean /reset\?")
        terminal.send("/help\r")
        terminal.expect(r"/stats")
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_base_model_continues_each_text(self):
        terminal = self.start("-v", model=self.base_model)
        counts = []
        for _ in range(2):
            terminal.send("hello\r")
            counts.append(int(re.search(r"\[prompt (\d+) tokens", terminal.expect(r"generated \d+ tokens"))[1]))
        self.assertEqual(counts[0], counts[1])
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_too_long_conversation_is_an_error_not_an_end(self):
        terminal = self.start("-c", "64")
        terminal.send("x" * 200 + "\r")
        terminal.expect(r"dspark: error: ")
        terminal.expect(PROMPT)
        terminal.send("/quit\r")
        self.assertEqual(terminal.close(), 0)


if __name__ == "__main__":
    unittest.main()
