#!/usr/bin/env python3
"""Do the servers that bench/serve_load.py compares read prompts right?

usage: bench/peer_check.py [--llama-server FILE] [--ik-server FILE] [--prompts N] [options of serve_load.py --launch]

A fast first token says nothing when the prompt was read wrong, and some kernels are used for long prompts only. This asks
every server for the likeliest token behind pieces of this project's documents and counts how often the document goes on
with it: behind pieces of about 16 tokens, and of about 128. Engines that compute the same model agree within a few.
"""
import argparse
import sys
import urllib.error
from pathlib import Path

import serve_client
import serve_load
import serve_servers

ROOT = Path(__file__).resolve().parent.parent
WORDS = {16: 11, 128: 90}  # about so many tokens


def pieces(n_words, count):
    """(beginning, what follows) of `count` places that have nothing in common."""
    words = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))).split()
    step = max(n_words + 20, len(words) // count)
    starts = range(0, len(words) - n_words - 20, step)
    return [(" ".join(words[i:i + n_words]), " " + " ".join(words[i + n_words:i + n_words + 20])) for i in starts][:count]


def hits(server, cases):
    found = 0
    for prompt, rest in cases:
        body = {"model": server["model"], "prompt": prompt, "max_tokens": 1, "temperature": 0}
        text = serve_client.call(server, "/v1/completions", body)["choices"][0]["text"]
        found += bool(text.strip()) and rest.startswith(text)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    serve_load.add_launch_options(parser)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--out", default=str(ROOT / "bench" / "out" / "peer_check"), help="folder for logs")
    args = parser.parse_args()
    args.slots = args.slots or 1
    print("| server | prompts of about 16 tokens | of about 128 tokens |\n|---|---|---|")
    try:
        for command in serve_servers.commands(args):
            with serve_servers.Fleet([command], Path(args.out)) as fleet:
                row = [(hits(fleet[0].server, cases), len(cases)) for cases in (pieces(n, args.prompts) for n in WORDS.values())]
                print(f"| {fleet[0].name} | " + " | ".join(f"{found} of {n}" for found, n in row) + " |", flush=True)
    except (serve_client.Failure, urllib.error.URLError) as error:
        sys.exit(f"peer_check: error: {error}")


if __name__ == "__main__":
    main()
