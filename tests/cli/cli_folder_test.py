#!/usr/bin/env python3
"""`dspark run` from a Hugging Face folder: its tokenizer, chat template, weights and stop ids, against GGUF files of the
same weights."""

import json
import unittest

from harness import Tool
from tiny_folder import write_tiny_folder

GREEDY = ("--temp", "0", "-n", "48", "-p", "hello there", "--kv-type", "f32")
# By the reference of tests/data/models/make_tiny_fixtures.py from the folder's files; no choice is closer than 0.01.
TEXT = "vvvvvhnbvvhshwkq vyhobmmmemevezjoxhggeutyhnel   "
# Names that no list of usual end-of-turn tokens has.
UNUSUAL = ("<|open|>", "<|close|>", "<|text|>")


class Folder(Tool):
    def answer(self, model, *more):
        result = self.succeed("run", "--json", "-m", model, *GREEDY, *more)
        self.assertEqual(result.stderr, "")
        return json.loads(result.stdout)

    def test_folder_and_files_of_the_same_weights_agree(self):
        folder = write_tiny_folder(self.path / "same", generation={"eos_token_id": 258})
        self.succeed("quantize", folder, "same.gguf", "--type", "F32", "-q")
        answer = self.answer(folder, "--ignore-eos")
        self.assertEqual(len(answer["tokens"]), 48)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["text"], TEXT)
        # self.chat_model was written by other code; its template and tokenizer are the same.
        for model in (self.chat_model, "same.gguf"):
            other = self.answer(model, "--ignore-eos")
            for key in ("tokens", "text"):
                self.assertEqual(other[key], answer[key], model)
            self.assertEqual(other["timings"]["prompt_tokens"], answer["timings"]["prompt_tokens"], model)

    def test_template_of_the_folder_is_used(self):
        folder = write_tiny_folder(self.path / "template")
        chat = self.answer(folder)["timings"]["prompt_tokens"]
        raw = self.answer(folder, "--raw")["timings"]["prompt_tokens"]
        # <|im_start|>user\n, <|im_end|>\n, <|im_start|>assistant\n
        self.assertEqual(chat - raw, (1 + 5) + (1 + 1) + (1 + 10))

    def test_sharded_folder(self):
        folder = self.path / "shards"
        whole = self.answer(write_tiny_folder(folder), "--ignore-eos")["tokens"]
        split(folder)
        self.assertEqual(self.answer(str(folder), "--ignore-eos")["tokens"], whole)

    def test_stop_id_of_generation_config_only(self):
        plain = self.answer(write_tiny_folder(self.path / "endless", specials=UNUSUAL, eos=None))
        self.assertEqual(plain["finish_reason"], "length")  # nothing in this folder says how a text ends
        tokens = plain["tokens"]
        at = next(i for i in range(4, len(tokens)) if tokens[i] not in tokens[:i])
        for number, stop in enumerate((tokens[at], [259, tokens[at]])):  # a number, and a list that starts with another
            folder = write_tiny_folder(self.path / f"stops{number}", specials=UNUSUAL, eos=None,
                                       generation={"eos_token_id": stop})
            stopped = self.answer(folder)
            self.assertEqual(stopped["finish_reason"], "stop")
            self.assertEqual(stopped["tokens"], tokens[:at + 1])  # the closing token is counted
            self.assertEqual(self.answer(folder, "--ignore-eos")["tokens"], tokens)

    def test_missing_files_are_named(self):
        folder = self.path / "gaps"
        write_tiny_folder(folder)
        for name, words in (("tokenizer.json", "has no tokenizer"), ("config.json", "no config.json"),
                            ("model.safetensors", "neither model.safetensors nor")):
            kept = (folder / name).read_bytes()
            (folder / name).unlink()
            message = self.fail_with(1, "run", "-m", str(folder), *GREEDY)
            self.assertIn("gaps", message)
            self.assertIn(words, message)
            (folder / name).write_bytes(kept)


def split(folder):
    """model.safetensors as two shards with an index."""
    blob = (folder / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:begin])
    names, weight_map = list(header), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        infos, data = {}, b""
        for name in part:
            first, last = header[name]["data_offsets"]
            infos[name] = {**header[name], "data_offsets": [len(data), len(data) + last - first]}
            data += blob[begin + first:begin + last]
            weight_map[name] = file
        text = json.dumps(infos).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


if __name__ == "__main__":
    unittest.main()
