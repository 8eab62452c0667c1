#!/usr/bin/env python3
"""dspark quantize: what it writes, what it says, what it refuses."""

import json
import unittest
from pathlib import Path

from harness import Tool

FOLDER = str(Path(__file__).resolve().parent.parent / "data" / "quantize" / "llama3_rope")

DRAFTERS = Path(__file__).resolve().parent.parent / "data" / "draft_formats"


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

    def test_drafters_become_gguf(self):
        text = self.succeed("quantize", str(DRAFTERS / "dspark_vanilla"), "draft.gguf", "--type", "Q8_0").stdout
        self.assertRegex(text, r"\] fc.weight +32 x 96 +BF16 -> Q8_0")
        self.assertRegex(text, r"\] conf_proj.weight +1 x 40 +BF16 -> F32")
        self.assertRegex(text, r"\] markov_w1.weight +96 x 8 +BF16 -> BF16 \(row length\)|BF16 kept")
        shown = self.succeed("inspect", "draft.gguf").stdout
        self.assertIn("read from GGUF (dflash), for a target of 6 layers\n", shown)
        self.assertIn("vanilla, rank 8\n", shown)
        # A GGUF drafter again: the embedding of this one would be taken for a head.
        text = self.succeed("quantize", str(DRAFTERS / "dflash_embd_without_output.gguf"), "q4.gguf", "--type", "Q4_0",
                            "-q").stdout
        self.assertIn("note: token_embd.weight is left out", text)
        self.assertIn("embedding        the target's\n", self.succeed("inspect", "q4.gguf").stdout)
        self.assertIn("tokenizer.ggml.tokens", self.succeed("inspect", "q4.gguf").stdout)
        text = self.succeed("quantize", str(DRAFTERS / "dflash"), "dflash.gguf", "-q").stdout
        self.assertIn("dflash, read from", self.succeed("inspect", "dflash.gguf").stdout)

    def test_short_blocks_are_kept_set_and_removed(self):
        def slots(path):
            return json.loads(self.succeed("inspect", "--json", path).stdout)["drafter"]["short_block_size"]
        drafter = str(DRAFTERS / "dspark_vanilla")
        self.succeed("quantize", drafter, "whole.gguf", "-q")
        self.assertEqual(slots("whole.gguf"), 0)
        self.assertNotIn("short blocks", self.succeed("inspect", "whole.gguf").stdout)
        self.succeed("quantize", drafter, "short.gguf", "-q", "--short-block", "3")
        self.assertIn("5 drafts per round (slot 0 predicts), mask token 95, short blocks of 3 slots for up to 3 drafts\n",
                      self.succeed("inspect", "short.gguf").stdout)
        self.succeed("quantize", "short.gguf", "again.gguf", "-q")
        self.assertEqual(slots("again.gguf"), 3)
        self.succeed("quantize", "again.gguf", "other.gguf", "-q", "--short-block", "2")
        self.assertEqual(slots("other.gguf"), 2)
        self.succeed("quantize", "again.gguf", "none.gguf", "-q", "--short-block", "0")
        self.assertEqual(slots("none.gguf"), 0)
        wrong = "--short-block: found {} slots, expected 0 (no short blocks) or 1 to 5"
        for number in ("-1", "6"):
            self.assertEqual(self.fail_with(1, "quantize", drafter, "x.gguf", "--short-block=" + number), wrong.format(number))
        for number in ("0", "3"):
            self.assertIn("drafters of kind eagle3 have no blocks",
                          self.fail_with(1, "quantize", str(DRAFTERS / "eagle3"), "x.gguf", "--short-block", number))
        self.assertIn("--short-block is for drafters", self.fail_with(1, "quantize", FOLDER, "x.gguf", "--short-block", "3"))
        self.assertFalse((self.path / "x.gguf").exists())

    def test_drafter_flags(self):
        drafter = str(DRAFTERS / "dspark_vanilla")
        self.assertIn("--standalone is for drafters", self.fail_with(1, "quantize", FOLDER, "x.gguf", "--standalone"))
        self.assertIn("--target is for drafters",
                      self.fail_with(1, "quantize", FOLDER, "x.gguf", "--target", self.chat_model))
        self.assertIn("the drafter was not made for this target: it wants 96 tokens (vocabulary), the target has 260",
                      self.fail_with(1, "quantize", drafter, "x.gguf", "--target", self.chat_model))
        self.assertIn("name the target", self.fail_with(1, "quantize", drafter, "x.gguf", "--standalone"))
        self.assertFalse((self.path / "x.gguf").exists())

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
