#!/usr/bin/env python3
"""dspark quantize: what it writes, what it says, what it refuses."""

import unittest
from pathlib import Path

from harness import Tool

FOLDER = str(Path(__file__).resolve().parent.parent / "data" / "quantize" / "llama3_rope")


class Quantize(Tool):
    def test_folder_to_gguf_and_on_to_another_type(self):
        text = self.succeed("quantize", FOLDER, "first.gguf", "--type", "bf16").stdout
        lines = text.splitlines()
        self.assertRegex(lines[0], r"^\[ +1/ +13\] rope_freqs.weight +8 +F32 kept ")
        self.assertRegex(text, r"\] blk.0.attn_q.weight +64 x 64 +BF16 -> BF16|BF16 kept")
        self.assertIn("note: no tokenizer is written (tokenizer.ggml.model = no_vocab)", text)
        self.assertRegex(lines[-1], r"^first.gguf: 0\.08 -> 0\.08 MiB, 16\.\d\d bits per weight, \d+\.\d s$")
        text = self.succeed("quantize", "first.gguf", "second.gguf", "--type", "Q4_K", "--token-embedding-type", "Q4_1",
                            "--output-type", "q5_0", "--keep-float", "blk.0.attn_*", "-t", "2").stdout
        self.assertRegex(text, r"token_embd.weight +64 x 64 +BF16 -> Q4_1")
        self.assertRegex(text, r"output.weight +64 x 64 +BF16 -> Q5_0")
        self.assertRegex(text, r"blk.0.attn_q.weight +64 x 64 +BF16 kept")
        self.assertRegex(text, r"blk.0.ffn_gate.weight +112 x 64 +BF16 -> Q5_0 \(row length\)")
        self.assertRegex(text, r"blk.0.ffn_down.weight +64 x 112 +BF16 kept|BF16 -> BF16 \(row length\)")
        quiet = self.succeed("quantize", "first.gguf", "third.gguf", "-q").stdout
        self.assertEqual(len(quiet.splitlines()), 1)

    def test_outputs_are_protected(self):
        self.succeed("quantize", FOLDER, "model.gguf", "-q")
        before = (self.path / "model.gguf").read_bytes()
        again = ("quantize", FOLDER, "model.gguf", "-q", "--type", "F32")
        self.assertEqual(self.fail_with(1, *again), "'model.gguf' exists already; --force overwrites it")
        self.assertEqual((self.path / "model.gguf").read_bytes(), before)
        self.succeed(*again, "--force")
        self.assertNotEqual((self.path / "model.gguf").read_bytes(), before)
        for name in ("model.gguf", "./model.gguf"):
            self.assertIn("is the input", self.fail_with(1, "quantize", "model.gguf", name, "--force"))
        self.assertIn("is a folder", self.fail_with(1, "quantize", "model.gguf", ".", "--force"))
        copy = self.path / "copy"
        copy.mkdir()
        for file in Path(FOLDER).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        self.assertIn("is a file of the input model",
                      self.fail_with(1, "quantize", "copy", "copy/model.safetensors", "--force"))

    def test_requantising_needs_a_flag(self):
        self.succeed("quantize", FOLDER, "eight.gguf", "-q", "--type", "Q8_0")
        call = ("quantize", "eight.gguf", "four.gguf", "-q", "--type", "Q4_0")
        self.assertIn("--allow-requantize", self.fail_with(1, *call))
        self.assertFalse((self.path / "four.gguf").exists())
        self.succeed(*call, "--allow-requantize")

    def test_wrong_words_are_named(self):
        def message(*options):
            return self.fail_with(1, "quantize", FOLDER, "never.gguf", *options)
        self.assertIn("--type: unknown type 'Q4_K_M' (writable: F32, ", message("--type", "Q4_K_M"))
        self.assertIn("--output-type: unknown type 'x'", message("--output-type", "x"))
        self.assertIn("cannot write type IQ2_XS", message("--type", "IQ2_XS"))
        self.assertIn("no tensor matches the pattern 'blk.9.*'", message("--keep-float", "blk.9.*"))
        self.assertIn("nowhere", self.fail_with(1, "quantize", "nowhere", "never.gguf"))
        self.assertIn("missing/never.gguf", self.fail_with(1, "quantize", FOLDER, "missing/never.gguf"))
        self.assertFalse((self.path / "never.gguf").exists())
        self.assertIn("output", self.fail_with(2, "quantize", FOLDER))


if __name__ == "__main__":
    unittest.main()
