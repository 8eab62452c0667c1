#!/usr/bin/env python3
"""Makes tests/data/tokenizer: small vocabularies and what independent implementations make of texts.

    tools/make_tokenizer_fixtures.py SMOLLM2.gguf CASES.jsonl...

Needs the Python packages tokenizers, sentencepiece and gguf. CASES.jsonl: lines with "text" (see
tests/data/tokenizer/README.md); texts longer than 160 characters are left out.
"""

import copy
import json
import random
import sys
import unicodedata
from pathlib import Path

import gguf
import sentencepiece
from tokenizers import Tokenizer

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"
N_MERGES = 1800
SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"


def byte_level_base(path):
    """The first merges of SmolLM2 with the tokens they need, as a tokenizer.json."""
    fields = gguf.GGUFReader(path).fields
    merges = fields["tokenizer.ggml.merges"].contents()[:N_MERGES]
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    made = {m.replace(" ", "") for m in merges}
    kept = [t for t, k in zip(tokens, types) if k == 3 or len(t) == 1 or t in made]
    vocab = {t: i for i, t in enumerate(kept)}
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for t, i in vocab.items() if t in tokens[:17]
    ]
    split_regex = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, split_regex]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }


def split_step(digits):
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT % digits}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, plain]}


def bos_template(text, token_id):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": text, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {text: {"id": text, "ids": [token_id], "tokens": [text]}}}


def added(token_id, text, special, **more):
    return {"id": token_id, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": not special, "special": special, **more}


def byte_level_variants(base):
    """name -> JSON merge patch on the base file."""
    n = len(base["model"]["vocab"])
    behaviors = {
        f"split_{name.lower()}{'_inverted' if invert else ''}": {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"String": "e"} if not invert else {"Regex": "[a-f]+"}, "behavior": name, "invert": invert},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}}
        for name in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
        for invert in (False, True)
    }
    extra = base["added_tokens"] + [added(n, "[VISIBLE]", False), added(n + 1, "[LEFT]", True, lstrip=True),
                                    added(n + 2, "[RIGHT]", True, rstrip=True), added(n + 3, "caf\u00e9!", False)]
    return {
        "smollm": {},
        "gpt2": {"pre_tokenizer": base["pre_tokenizer"]["pretokenizers"][1]},
        "gpt2_prefix_space": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        "llama3": {"pre_tokenizer": split_step("{1,3}"), "model": {"ignore_merges": True},
                   "post_processor": {"type": "Sequence", "processors": [
                       {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                       bos_template("<|im_start|>", 1)]}},
        "qwen2": {"pre_tokenizer": split_step(""), "normalizer": {"type": "NFC"}},
        "nfkd": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}]}},
        "digits_together": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, base["pre_tokenizer"]["pretokenizers"][1]]}},
        "added": {"added_tokens": extra, "normalizer": {"type": "NFC"}},
        **behaviors,
    }


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    out = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def expected(tokenizer, text, add_special):
    ids = tokenizer.encode(text, add_special_tokens=add_special).ids
    case = {"text": text, "add_special": add_special, "ids": ids}
    plain = tokenizer.decode(ids, skip_special_tokens=True)
    if "\ufffd" in plain and "\ufffd" not in text:
        # The library's byte-level decoder also decodes the text of visible added tokens, which are not encoded.
        plain = unicodedata.normalize("NFC", text)
    if plain != text:
        case["decoded"] = plain
    return case


def write_lines(name, cases):
    with open(OUT / name, "w", encoding="utf-8") as f:
        for case in cases:
            f.write(json.dumps(case, ensure_ascii=False) + "\n")


def make_byte_level(path, texts, rng):
    base = byte_level_base(path)
    dump(base, "byte_level.json")
    marked = ["[VISIBLE] a [LEFT] b [RIGHT]  c", "x[LEFT]y[RIGHT]z", "  [LEFT]", "[RIGHT]\n\n tail", "cafe\u0301! caf\u00e9!",
              "<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|><|endoftext|>", "a<|im_start|", "<file_sep>x"]
    cases = []
    for name, patch in byte_level_variants(base).items():
        tokenizer = Tokenizer.from_str(json.dumps(merge_patch(base, patch)))
        chosen = texts if name in ("smollm", "llama3", "qwen2") else rng.sample(texts, 25)
        cases.append({"variant": name, "patch": patch})
        cases += [expected(tokenizer, t, i % 3 == 0) for i, t in enumerate(chosen + marked)]
    write_lines("byte_level.jsonl", cases)


def dump(tokenizer_json, name):
    """One token or merge per line would be large; one line per part keeps diffs readable."""
    model = tokenizer_json["model"]
    small = {k: v for k, v in tokenizer_json.items() if k != "model"}
    head = json.dumps(small, ensure_ascii=False)[:-1]
    rest = json.dumps({k: v for k, v in model.items() if k not in ("vocab", "merges")}, ensure_ascii=False)[:-1]
    vocab = json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":"))
    merges = json.dumps(model["merges"], ensure_ascii=False, separators=(",", ":"))
    (OUT / name).write_text(f'{head},\n"model": {rest},\n"vocab": {vocab},\n"merges": {merges}}}}}\n', encoding="utf-8")


USER_DEFINED = ["\n", "\n\n", "\n\n\n", "  ", "   ", "    ", "<table>", "</s>"]


def train_sentencepiece(texts):
    corpus = OUT / "corpus.tmp"
    corpus.write_text("\n".join(t.replace("\n", " ") for t in texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(OUT / "spm"), model_type="bpe", vocab_size=1400, byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, control_symbols=["<start_of_turn>", "<end_of_turn>"],
        user_defined_symbols=[t.replace(" ", "\u2581") for t in USER_DEFINED[:-1]], allow_whitespace_only_pieces=True, minloglevel=2)
    corpus.unlink()
    (OUT / "spm.vocab").unlink()
    return OUT / "spm.model"


def make_sentencepiece(texts):
    model = train_sentencepiece(texts)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    user_defined = {t.replace(" ", "\u2581") for t in USER_DEFINED[:-1]}

    def kind(i):  # as tokenizer.ggml.token_type
        if processor.id_to_piece(i) in user_defined:
            return 4
        return 2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1

    pieces = [{"piece": processor.id_to_piece(i), "score": processor.get_score(i), "type": kind(i)} for i in range(len(processor))]
    # In GGUF files user-defined pieces hold real spaces.
    for p in pieces:
        if p["type"] == 4:
            p["piece"] = p["piece"].replace("\u2581", " ")
    metadata = {"tokens": [p["piece"] for p in pieces], "scores": [round(p["score"], 4) for p in pieces],
                "types": [p["type"] for p in pieces], "bos": 2, "eos": 1, "unk": 3, "pad": 0}
    (OUT / "sentencepiece.json").write_text(json.dumps(metadata, ensure_ascii=False) + "\n", encoding="utf-8")
    usable = [t for t in texts if "\u2581" not in t and "\x00" not in t]
    write_lines("sentencepiece.jsonl", [{"text": t, "ids": processor.encode(t)} for t in usable])
    model.unlink()


def make_byte_fallback(texts, rng):
    """A Gemma-like tokenizer.json: merges, byte fallback, spaces as marks."""
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1300, special_tokens=special, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator([t for t in texts if len(t) > 8], trainer)
    base = json.loads(tokenizer.to_str())
    base["added_tokens"] = [a for a in base["added_tokens"] if not a["content"].startswith("<0x")]
    n = max(base["model"]["vocab"].values()) + 1
    base["added_tokens"] += [added(n, "\n\n", False, normalized=False), added(n + 1, "<start_of_turn>", True),
                             added(n + 2, "<end_of_turn>", True)]
    base["post_processor"] = bos_template("<bos>", 2)
    dump(base, "byte_fallback.json")
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    strip = {"type": "Sequence", "decoders": base["decoder"]["decoders"] + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    variants = {
        "gemma": {},
        "prepend": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, base["normalizer"]]},
                    "pre_tokenizer": None, "decoder": strip},
        "metaspace": {"normalizer": None, "pre_tokenizer": metaspace, "decoder": strip},
        "metaspace_first": {"normalizer": None, "pre_tokenizer": {**metaspace, "prepend_scheme": "first", "split": False}, "decoder": strip},
        "unknown": {"model": {"byte_fallback": False}},
        "unknown_apart": {"model": {"byte_fallback": False, "fuse_unk": False}},
    }
    marked = ["<start_of_turn>user\nhi<end_of_turn>\n", "a\n\nb\n\n\nc", "<bos>x<eos>", " lead", "  two", "tail ", "\u4f60\u597d\U0001f600\u00df"]
    cases = []
    for name, patch in variants.items():
        variant = Tokenizer.from_str(json.dumps(merge_patch(base, patch)))
        cases.append({"variant": name, "patch": patch})
        chosen = texts if name == "gemma" else rng.sample(texts, 40)
        cases += [expected(variant, t, i % 3 == 0) for i, t in enumerate(chosen + marked)]
    write_lines("byte_fallback.jsonl", cases)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    rng = random.Random(7)
    texts = {}
    for path in sys.argv[2:]:
        for line in open(path, encoding="utf-8"):
            text = json.loads(line).get("text")
            if text and len(text) <= 160:
                texts[text] = None
    texts = rng.sample(sorted(texts), 200)
    OUT.mkdir(parents=True, exist_ok=True)
    make_byte_level(sys.argv[1], texts, rng)
    make_sentencepiece(texts)
    make_byte_fallback(texts, rng)


if __name__ == "__main__":
    main()
