#!/usr/bin/env python3
"""`dspark draft`: one round of a drafter, against the reference's numbers."""

import json
import unittest
from pathlib import Path

from harness import Tool
from safetensors_file import largest_difference, read_safetensors
from tiny_drafter import write_tiny_drafter

DATA = Path(__file__).resolve().parent.parent / "data" / "draft"
TARGET = str(DATA / "targets" / "llama")
DRAFTER = DATA / "drafts" / "llama_dspark_vanilla"


class Draft(Tool):
    def draft(self, *arguments):
        out = str(self.path / "round.safetensors")
        self.succeed("draft", "-o", out, *arguments)
        return read_safetensors(out)

    def test_rounds_are_the_references(self):
        expected = json.loads((DRAFTER / "expected.json").read_text())
        generation = expected["generations"][0]
        self.assertEqual(generation["case"], "greedy_p0")
        prompt = ",".join(map(str, generation["prompt"]))
        got = self.draft("-m", TARGET, "-d", str(DRAFTER), "--tokens", prompt, "--rounds", "3", "--dtype", "f32")
        self.assertEqual(got["input_ids"][1].tolist(), generation["prompt"])
        for i, want in enumerate(generation["rounds"][:3]):
            one = {name.removeprefix(f"r{i}."): value for name, value in got.items()}
            self.assertEqual(one["anchor"][1].tolist(), [want["x0"]])
            self.assertEqual(one["position"][1].tolist(), [want["n"]])
            self.assertEqual(one["drafts"][1].tolist(), want["drafts"])
            self.assertEqual(one["accepted"][1].tolist(), [want["accepted"]])
            self.assertEqual(one["next_token"][1].tolist(), [want["next_token"]])
            self.assertLess(largest_difference(one["confidence_logits"][1], want["confidence_logits"]), 2e-4)
            self.assertEqual(one["U"][0], [7, 320])
            self.assertEqual(one["Z"][0], [7, 320])
            self.assertEqual(one["hidden"][0], [7, 64])
            self.assertEqual(one["target_logits"][0], [8, 320])
            rows = [one["Z"][1][320 * k:320 * (k + 1)] for k in range(7)]
            self.assertEqual([row.index(max(row)) for row in rows], want["drafts"])
        self.assertEqual(got["r0.context_rows"][0], [len(generation["prompt"]), 64])
        self.assertEqual(got["r1.context_rows"][0], [generation["rounds"][0]["accepted"] + 1, 64])

    def test_a_prompt_of_text(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        got = self.draft("-m", self.chat_model, "-d", drafter, "-p", "hello")
        self.assertEqual(got["r0.drafts"][0], [4])
        again = self.draft("-m", self.chat_model, "-d", drafter, "--tokens",
                           ",".join(map(str, got["input_ids"][1].tolist())))
        self.assertEqual(got["r0.Z"], again["r0.Z"])

    def test_errors(self):
        out = str(self.path / "none.safetensors")
        base = ("draft", "-m", TARGET, "-o", out)
        golden = (*base, "-d", str(DRAFTER))
        self.assertIn("either --tokens or --prompt", self.fail_with(1, *golden))
        self.assertIn("either --tokens or --prompt", self.fail_with(1, *golden, "--tokens", "1", "-p", "x"))
        self.assertIn("has no tokenizer", self.fail_with(1, *golden, "-p", "x"))
        self.assertIn("320", self.fail_with(1, *golden, "--tokens", "1,320"))
        self.assertIn("--dtype", self.fail_with(1, *golden, "--tokens", "1", "--dtype", "f16"))
        self.assertIn("--rounds", self.fail_with(1, *golden, "--tokens", "1", "--rounds", "999"))
        self.assertIn("nowhere", self.fail_with(1, *base, "-d", "nowhere", "--tokens", "1"))
        self.assertIn("--drafter", self.fail_with(2, *base, "--tokens", "1"))
        self.assertFalse(Path(out).exists())

    def test_a_drafter_for_another_target(self):
        out = str(self.path / "none.safetensors")
        message = self.fail_with(1, "draft", "-m", self.chat_model, "-d", str(DRAFTER), "--tokens", "1,2", "-o", out)
        self.assertRegex(message, "target.*(64|32|320|260)")


if __name__ == "__main__":
    unittest.main()
