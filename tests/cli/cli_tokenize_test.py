#!/usr/bin/env python3
"""dspark tokenize: ids and pieces of a text, text of ids, wrong calls."""

import json
import unittest

from harness import Tool


class Tokenize(Tool):
    def test_round_trip(self):
        for text in ("hello", "caf\u00e9 \u4f60\u597d\n", "", "a<|im_end|>b"):
            ids = self.succeed("tokenize", "-m", self.chat_model, "--ids", "--no-special", text).stdout.strip()
            back = self.succeed("tokenize", "-m", self.chat_model, "--decode", ids).stdout
            self.assertEqual(back, text + "\n")

    def test_sources_agree(self):
        text = "some text\nin two lines"
        (self.path / "text.txt").write_text(text, encoding="utf-8")
        common = ("tokenize", "-m", self.chat_model, "--ids")
        given = self.succeed(*common, text).stdout
        self.assertEqual(self.succeed(*common, "-f", "text.txt").stdout, given)
        self.assertEqual(self.succeed(*common, stdin=text).stdout, given)
        self.assertEqual(self.succeed(*common, "-f", "-", stdin=text).stdout, given)

    def test_special_tokens(self):
        common = ("tokenize", "-m", self.chat_model, "--json", "--no-special")
        parsed = json.loads(self.succeed(*common, "<|im_end|>").stdout)
        self.assertEqual(parsed["n_tokens"], 1)
        self.assertEqual(parsed["tokens"][0], {"id": parsed["ids"][0], "text": "<|im_end|>", "special": True})
        plain = json.loads(self.succeed(*common, "--no-parse-special", "<|im_end|>").stdout)
        self.assertGreater(plain["n_tokens"], 1)
        self.assertFalse(any(token["special"] for token in plain["tokens"]))
        listed = ",".join(map(str, parsed["ids"]))
        shown = self.succeed("tokenize", "-m", self.chat_model, "--decode", listed, "--no-special").stdout
        self.assertEqual(shown, "\n")

    def test_table(self):
        table = self.succeed("tokenize", "-m", self.chat_model, "--no-special", "he\n").stdout
        self.assertIn('"\\n"', table)
        self.assertIn("tokens, byte-level BPE", table)

    def test_errors(self):
        model = ("tokenize", "-m", self.chat_model)
        self.assertIn("--decode", self.fail_with(1, *model, "--decode", "1,x"))
        self.assertIn("'99999999'", self.fail_with(1, *model, "--decode", "99999999"))
        self.assertIn("absent.txt", self.fail_with(1, *model, "-f", "absent.txt"))
        self.assertIn("absent.gguf", self.fail_with(1, "tokenize", "-m", "absent.gguf", "x"))
        self.fail_with(2, *model, "--ids", "--json", "x")


if __name__ == "__main__":
    unittest.main()
