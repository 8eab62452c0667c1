#!/usr/bin/env python3
"""`dspark draft`: rounds of drafters of every kind, against the reference's numbers or against some told by hand."""

import json
import math
import unittest
from pathlib import Path

from harness import Tool
from safetensors_file import largest_difference, read_safetensors
from tiny_drafter import write_tiny_drafter
from tiny_mtp import embedding_rows, write_tiny_mtp

FIXTURES = Path(__file__).resolve().parent.parent / "data"
DATA = FIXTURES / "draft"
TARGET = str(DATA / "targets" / "llama")
DRAFTER = DATA / "drafts" / "llama_dspark_vanilla"
TOLERANCE = 2e-4  # of the reference set, for fp32
# Drafters of the reference with whole generations and the tensors of the first round.
KINDS = {
    "qwen3_dflash": DATA, "qwen3_dspark_noconf": DATA, "qwen3_eagle3": DATA, "gemma4_eagle3": DATA,
    "qwen3_dspark_gated": FIXTURES / "drafters", "qwen3_dspark_rnn": FIXTURES / "drafters",
    "gemma4_dspark_vanilla": FIXTURES / "drafters",
}


def read_expected(folder):
    return json.loads((folder / "expected.json").read_text())


def first_generation(folder):
    generation = read_expected(folder)["generations"][0]
    assert generation["case"] == "greedy_p0"
    return generation


def comma(tokens):
    return ",".join(map(str, tokens))


def rows_of(tensor):
    (n_rows, n_columns), values = tensor
    return [values[n_columns * k:n_columns * (k + 1)] for k in range(n_rows)]


class Draft(Tool):
    def draft(self, *arguments):
        out = str(self.path / "round.safetensors")
        self.succeed("draft", "-o", out, *arguments)
        return read_safetensors(out)

    def one_round(self, got, i):
        return {name.removeprefix(f"r{i}."): value for name, value in got.items() if name.startswith(f"r{i}.")}

    def expect_rounds(self, got, rounds):
        """What was drafted and accepted; the drafts are where the step logits are largest."""
        for i, want in enumerate(rounds):
            one = self.one_round(got, i)
            self.assertEqual(one["anchor"][1].tolist(), [want["x0"]])
            self.assertEqual(one["position"][1].tolist(), [want["n"]])
            self.assertEqual(one["drafts"][1].tolist(), want["drafts"])
            self.assertEqual(one["accepted"][1].tolist(), [want["accepted"]])
            self.assertEqual(one["next_token"][1].tolist(), [want["next_token"]])
            ids = got["vocab_ids"][1] if "vocab_ids" in got else range(one["Z"][0][1])
            self.assertEqual([ids[max(range(len(row)), key=row.__getitem__)] for row in rows_of(one["Z"])], want["drafts"])
            self.assertEqual("confidence_logits" in one, want["confidence_logits"] is not None)
            if want["confidence_logits"] is not None:
                self.assertLess(largest_difference(one["confidence_logits"][1], want["confidence_logits"]), TOLERANCE)

    def expect_close(self, got, want, name):
        self.assertEqual(got[0], want[0], name)
        self.assertLess(largest_difference(got[1], want[1]), TOLERANCE, name)

    def test_rounds_are_the_references(self):
        generation = first_generation(DRAFTER)
        got = self.draft("-m", TARGET, "-d", str(DRAFTER), "--tokens", comma(generation["prompt"]), "--rounds", "3",
                         "--dtype", "f32")
        self.assertEqual(got["input_ids"][1].tolist(), generation["prompt"])
        self.expect_rounds(got, generation["rounds"][:3])
        for i in range(3):
            one = self.one_round(got, i)
            self.assertEqual(one["U"][0], [7, 320])
            self.assertEqual(one["Z"][0], [7, 320])
            self.assertEqual(one["hidden"][0], [7, 64])
            self.assertEqual(one["target_logits"][0], [8, 320])
        self.assertEqual(got["r0.context_rows"][0], [len(generation["prompt"]), 64])
        self.assertEqual(got["r1.context_rows"][0], [generation["rounds"][0]["accepted"] + 1, 64])

    def test_every_kind_of_drafter(self):
        for name, root in KINDS.items():
            with self.subTest(name):
                folder = root / "drafts" / name
                generation, expected = first_generation(folder), read_safetensors(folder / "expected.safetensors")
                got = self.draft("-m", str(DATA / "targets" / name.split("_")[0]), "-d", str(folder), "--tokens",
                                 comma(generation["prompt"]), "--rounds", "3", "--dtype", "f32")
                self.assertNotIn("vocab_ids", got)
                self.expect_rounds(got, generation["rounds"][:3])
                # The reference's forced rounds begin where its generations do.
                first = self.one_round(got, 0)
                if "eagle3" in name:
                    self.expect_close(first["Z"], expected["r0.step_logits"], "Z")
                    self.expect_close(first["context_rows"], expected["prefill.g"], "context_rows")
                    continue
                for tensor in ("U", "Z", "hidden"):
                    self.expect_close(first[tensor], expected["r0." + tensor], tensor)
                self.expect_close(first["context_rows"], expected["round0.context_rows"], "context_rows")

    def test_reduced_vocabulary(self):
        prompt = first_generation(DATA / "drafts" / "qwen3_dflash")["prompt"]
        folder = DATA / "sources" / "qwen3_dspark_vanilla_v160"
        want, expected = read_expected(folder)["rounds"][0], read_safetensors(folder / "expected.safetensors")
        for drafter in ("speculators_v160", "dflash_v160.gguf"):
            with self.subTest(drafter):
                got = self.draft("-m", str(DATA / "targets" / "qwen3"), "-d", str(FIXTURES / "draft_formats" / drafter),
                                 "--tokens", comma(prompt), "--dtype", "f32")
                ids = got["vocab_ids"][1].tolist()
                self.assertEqual(len(ids), 160)
                self.assertEqual(ids, sorted(set(ids)))
                self.assertTrue(0 <= ids[0] and ids[-1] < 320)
                self.assertEqual(got["r0.anchor"][1].tolist(), [want["x0"]])
                self.assertEqual(got["r0.position"][1].tolist(), [want["n"]])
                self.assertEqual(got["r0.drafts"][1].tolist(), want["drafts"])
                self.assertEqual(got["r0.U"][0], [7, 160])
                self.expect_close(got["r0.Z"], expected["r0.Z"], "Z")
                best = [ids[max(range(160), key=row.__getitem__)] for row in rows_of(got["r0.Z"])]
                self.assertEqual(best, want["drafts"])
                self.expect_close(got["r0.confidence_logits"], expected["r0.confidence_logits"], "confidence_logits")

    def test_mtp_reads_the_newest_token(self):
        drafter = write_tiny_mtp(self.path / "mtp-embedding", "embedding")
        got = self.draft("-m", self.chat_model, "-d", drafter, "--tokens", "104,101,108,108,111", "--rounds", "3",
                         "--dtype", "f32")
        rows = embedding_rows(self.chat_model)
        for i in range(3):
            one = self.one_round(got, i)
            self.assertEqual(one["drafts"][0], [1])
            row = rows[one["anchor"][1][0]]
            # Two norms one behind the other: of the embedding, and in front of the head.
            for _ in range(2):
                scale = 1 / math.sqrt(sum(x * x for x in row) / len(row) + 1e-6)
                row = [x * scale for x in row]
            self.assertLess(largest_difference(one["hidden"][1], row), 1e-5)
            logits = [sum(a * b for a, b in zip(row, head)) for head in rows]
            self.assertLess(largest_difference(one["Z"][1], logits), 1e-4)
            self.assertEqual(one["Z"], one["U"])
            self.assertEqual(one["drafts"][1][0], max(range(len(logits)), key=logits.__getitem__))

    def test_mtp_reads_the_targets_hidden_state(self):
        # It comes from in front of the anchor, so what the head makes of it is the anchor again.
        drafter = write_tiny_mtp(self.path / "mtp-hidden", "hidden")
        got = self.draft("-m", self.chat_model, "-d", drafter, "--tokens", "104,101,108,108,111", "--rounds", "4",
                         "--dtype", "f32")
        for i in range(4):
            one = self.one_round(got, i)
            self.assertEqual(one["drafts"][1].tolist(), one["anchor"][1].tolist())
            if i > 0:  # Z is the row of the target's logits that chose the anchor, up to the length of the hidden state
                before = self.one_round(got, i - 1)
                chosen = rows_of(before["target_logits"])[before["accepted"][1][0]]
                z = one["Z"][1]
                at = max(range(len(z)), key=z.__getitem__)
                scale = z[at] / chosen[at]
                self.assertLess(largest_difference(z, [scale * x for x in chosen]), 1e-4)

    def test_shortlist(self):
        tokens = comma(first_generation(DRAFTER)["prompt"])
        arguments = ("-m", TARGET, "-d", str(DRAFTER), "--tokens", tokens, "--dtype", "f32")
        full, listed = self.draft(*arguments), self.draft(*arguments, "--shortlist", "12")
        self.assertEqual(full["r0.U"], listed["r0.U"])
        all_z = rows_of(full["r0.Z"])
        self.assertTrue(all(math.isfinite(z) for row in all_z for z in row))
        previous_agree = True  # a step's bias depends on the draft before it
        for k, (base, row) in enumerate(zip(rows_of(full["r0.U"]), rows_of(listed["r0.Z"]))):
            kept = [v for v, z in enumerate(row) if z > -math.inf]
            self.assertEqual(kept, sorted(sorted(range(320), key=lambda v: (-base[v], v))[:12]))
            self.assertEqual(listed["r0.drafts"][1][k], max(kept, key=row.__getitem__))
            if previous_agree:
                self.assertLess(max(abs(row[v] - all_z[k][v]) for v in kept), TOLERANCE)
            previous_agree &= listed["r0.drafts"][1][k] == full["r0.drafts"][1][k]
        everything = self.draft(*arguments, "--shortlist", "320")
        self.assertEqual(everything["r0.Z"], full["r0.Z"])

    def test_calibration(self):
        tokens = comma(first_generation(DRAFTER)["prompt"])
        arguments = ("-m", TARGET, "-d", str(DRAFTER), "--tokens", tokens, "--dtype", "f32")
        temperatures, biases = [2.0, 0.5, 1.25], [0.5, -1.0, 0.0]
        file = self.path / "temperatures.json"
        file.write_text(json.dumps({"temperatures": temperatures, "biases": biases}))
        plain, calibrated = self.draft(*arguments), self.draft(*arguments, "--calibration", str(file))
        for name in ("r0.Z", "r0.drafts", "r0.confidence_logits"):
            self.assertEqual(plain[name], calibrated[name], name)
        for k, z in enumerate(plain["r0.confidence_logits"][1]):
            self.assertAlmostEqual(plain["r0.confidence"][1][k], 1 / (1 + math.exp(-z)), places=5)
            if k < len(temperatures):  # positions behind the table stay as they are
                z = z / temperatures[k] + biases[k]
            self.assertAlmostEqual(calibrated["r0.confidence"][1][k], 1 / (1 + math.exp(-z)), places=5)
        out = str(self.path / "none.safetensors")
        dflash = ("draft", "-o", out, "-m", str(DATA / "targets" / "qwen3"), "-d", str(DATA / "drafts" / "qwen3_dflash"))
        message = self.fail_with(1, *dflash, "--tokens", tokens, "--calibration", str(file))
        self.assertIn("temperatures.json", message)
        self.assertIn("confidence", message)
        self.assertIn("nowhere.json", self.fail_with(1, *dflash, "--tokens", tokens, "--calibration", "nowhere.json"))

    def test_a_prompt_of_text(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        got = self.draft("-m", self.chat_model, "-d", drafter, "-p", "hello")
        self.assertEqual(got["r0.drafts"][0], [4])
        again = self.draft("-m", self.chat_model, "-d", drafter, "--tokens", comma(got["input_ids"][1].tolist()))
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
