"""Prompts of equal length for bench/serve_load.py."""

import json
import random
import re
from pathlib import Path

import serve_client

WORDS = ("river stone table light window garden paper music winter summer story number letter mountain people "
         "water machine answer question small large early late green yellow quiet simple certain common river").split()


def word_prompt(rng, tokens):
    """Words of a closed list are about one token each."""
    words = [rng.choice(WORDS) for _ in range(max(1, tokens - 24))]
    return f"Note {rng.randrange(10**6)}. Continue this list of words with a long story: " + " ".join(words)


def read_units(paths):
    """Prompts of JSON lines ({"prompt": ...}), paragraphs of any other text."""
    units = []
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            units += [json.loads(line)["prompt"].strip() for line in text.splitlines() if line.strip()]
        else:
            units += [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if len(part.split()) >= 8]
    if not units:
        raise serve_client.Failure("the prompt files hold no prompts")
    return units


def template_tokens(server):
    """What the chat template adds to a prompt."""
    body = {"model": server["model"], "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}
    usage = serve_client.call(server, "/v1/chat/completions", body)["usage"]
    return usage["prompt_tokens"] - len(serve_client.call(server, "/tokenize", {"content": "hello"})["tokens"])


def passage(server, units, rng, tokens):
    """The last `tokens` tokens of some units one after the other: the question at the end is whole if it is short
    enough, and hardly two passages begin alike."""
    text = rng.choice(units)
    while len(ids := serve_client.call(server, "/tokenize", {"content": text})["tokens"]) < tokens:
        text = rng.choice(units) + "\n\n" + text
    cut = serve_client.call(server, "/detokenize", {"tokens": ids[-tokens:]})["content"]
    return cut.strip("\ufffd")


def make_prompts(args, server, count):
    """`count` prompts whose requests have about args.prompt_tokens tokens, template included; the same for a seed.

    Cut with the tokenizer of `server`. Without prompt files: lists of words.
    """
    if not args.prompt_file:
        return [word_prompt(random.Random(f"{args.seed} {i}"), args.prompt_tokens) for i in range(count)]
    units = read_units(args.prompt_file)
    tokens = max(1, args.prompt_tokens - template_tokens(server))
    return [passage(server, units, random.Random(f"{args.seed} {i}"), tokens) for i in range(count)]
