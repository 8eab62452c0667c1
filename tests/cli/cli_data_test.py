#!/usr/bin/env python3
"""`dspark data`: from prompts to a corpus, a draft vocabulary and a target cache."""

import json
import struct
import unittest

from harness import Tool


class Data(Tool):
    def setUp(self):
        lines = [{"task": task, "id": i, "prompt": f"the {task} number {i}"} for task in ("a", "b") for i in range(4)]
        (self.path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def generate(self, output, *arguments, model=None):
        self.succeed("data", "generate", "-m", model or self.chat_model, "prompts.jsonl", "-o", output,
                     "--max-tokens", "20", "--max-prompt", "200", "--samples", "2", "--temps", "0,0.9", *arguments)
        return (self.path / output).read_bytes()

    def records(self, output):
        return [json.loads(line) for line in (self.path / output).read_text().splitlines()]

    def test_batch_and_threads_do_not_matter(self):
        one = self.generate("one.jsonl", "--batch", "1", "-t", "1")
        many = self.generate("many.jsonl", "--batch", "7", "-t", "2")
        self.assertEqual(one, many)
        records = self.records("one.jsonl")
        self.assertEqual(len(records), 16)
        self.assertEqual(len({record["seed"] for record in records}), 16)
        self.assertEqual({record["temperature"] for record in records}, {0.0, 0.9})
        for record in records:
            self.assertLess(record["prompt_tokens"], len(record["tokens"]))
            self.assertLessEqual(len(record["tokens"]), record["prompt_tokens"] + 20)
            self.assertEqual([turn["role"] for turn in record["conversations"]], ["user", "assistant"])

    def test_a_cut_file_is_continued(self):
        whole = self.generate("whole.jsonl")
        (self.path / "cut.jsonl").write_bytes(whole[: len(whole) // 2])
        self.assertEqual(self.generate("cut.jsonl"), whole)

    def test_other_settings_are_refused(self):
        self.generate("c.jsonl")
        message = self.fail_with_lines("data", "generate", "-m", self.chat_model, "prompts.jsonl", "-o", "c.jsonl",
                                       "--seed", "5", "--samples", "2", "--temps", "0,0.9")
        self.assertIn("c.jsonl", message)
        self.assertIn("was made with seed", message)

    def test_variations(self):
        self.generate("plain.jsonl", model=self.base_model)
        self.generate("varied.jsonl", "--variations", "a=2", model=self.base_model)
        plain, varied = self.records("plain.jsonl"), self.records("varied.jsonl")
        self.assertEqual([record for record in varied if "~" not in record["id"]], plain)
        others = {record["id"]: record for record in varied if "~" in record["id"]}
        self.assertEqual(set(others), {f"a/{i}~{n}#0" for i in range(4) for n in range(2)})
        for i, record in others.items():
            self.assertIn(record["conversations"][0]["content"], ("the", "the a"), i)
        message = self.fail_with_lines("data", "generate", "-m", self.chat_model, "prompts.jsonl", "-o", "w.jsonl",
                                       "--variations", "nothing=2")
        self.assertIn("variations: no prompt has the task 'nothing'", message)

    def fail_with_lines(self, *arguments):
        result = self.call(*arguments)
        self.assertEqual(result.returncode, 1, result.stderr)
        return result.stderr.splitlines()[-1]

    def test_base_models_continue_texts(self):
        self.generate("base.jsonl", "--self-prompt", "3", model=self.base_model)
        own = [record for record in self.records("base.jsonl") if record["task"] == "self"]
        self.assertLessEqual(len(own), 3)
        for record in own:
            self.assertEqual([turn["role"] for turn in record["conversations"]], ["assistant"])

    def test_filter_counts_and_keeps_the_rest(self):
        whole = self.generate("raw.jsonl").decode()
        (self.path / "twice.jsonl").write_text(whole + whole)
        result = self.succeed("data", "filter", "twice.jsonl", "-o", "kept.jsonl", "--max-loops", "1",
                              "--max-foreign", "1", "--min-tokens", "1")
        total = result.stdout.splitlines()[-1]
        n_kept = len(self.records("kept.jsonl"))
        self.assertRegex(total, rf"^all +{n_kept} of +32 kept")
        # Greedy samples of one prompt are equal as well.
        self.assertIn(f"{32 - n_kept} duplicate", total)
        self.assertGreaterEqual(32 - n_kept, 16)

    def test_vocab(self):
        self.generate("v.jsonl")
        self.succeed("data", "vocab", "v.jsonl", "-m", self.chat_model, "-o", "vocab.json", "--size", "40")
        vocab = json.loads((self.path / "vocab.json").read_text())
        counts = [0] * vocab["vocab_size"]
        for record in self.records("v.jsonl"):
            for token in record["tokens"]:
                counts[token] += 1
        expected = sorted(range(len(counts)), key=lambda token: (-counts[token], token))[:40]
        self.assertEqual(vocab["ids"], sorted(expected))
        message = self.fail_with(1, "data", "vocab", "v.jsonl", "-m", self.chat_model, "-o", "x", "--size", "9999")
        self.assertIn("--size", message)

    def test_cache(self):
        self.generate("k.jsonl")
        self.succeed("data", "cache", "-m", self.chat_model, "k.jsonl", "-o", "cache", "--layers", "0,1",
                     "--min-tokens", "15", "--log-sum-exp")
        kept = [record for record in self.records("k.jsonl") if len(record["tokens"]) - record["prompt_tokens"] >= 15]
        manifest = json.loads((self.path / "cache" / "manifest.json").read_text())
        self.assertEqual(manifest["num_samples"], len(kept))
        self.assertEqual(manifest["target_layer_ids"], [0, 1])
        index = (self.path / "cache" / "samples.idx").read_bytes()
        shard = (self.path / "cache" / "shard-00000.bin").read_bytes()
        for i, record in enumerate(kept):
            sample, _, length, ids, _, mask, _, _ = struct.unpack_from("<QIIQQQQQ", index, 56 * i)
            self.assertEqual((sample, length), (i, len(record["tokens"])))
            self.assertEqual(list(struct.unpack_from(f"<{length}i", shard, ids)), record["tokens"])
            self.assertEqual(list(shard[mask:mask + length]),
                             [int(p >= record["prompt_tokens"]) for p in range(length)])
        n_tokens = sum(len(record["tokens"]) for record in kept)
        self.assertEqual(len(shard), n_tokens * (6 + 2 * 3 * manifest["hidden_size"]))
        self.assertEqual((self.path / "cache" / "log_sum_exp.bin").stat().st_size, 4 * n_tokens)
        message = self.fail_with(1, "data", "cache", "-m", self.chat_model, "k.jsonl", "-o", "cache")
        self.assertIn("finished cache", message)

    def test_wrong_usage(self):
        self.assertIn("temps", self.fail_with(1, "data", "generate", "-m", self.chat_model, "prompts.jsonl", "-o",
                                                "t", "--temps", "hot"))
        self.assertIn("no.jsonl", self.fail_with(1, "data", "filter", "no.jsonl"))
        self.assertIn("layers", self.fail_with(1, "data", "cache", "-m", self.chat_model, "prompts.jsonl", "-o", "t2",
                                               "--layers", "1,9"))
        self.fail_with(2, "data")


if __name__ == "__main__":
    unittest.main()
