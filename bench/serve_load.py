#!/usr/bin/env python3
"""Load on OpenAI-compatible servers: streaming clients, total and per-user speed, time to the first token.

    bench/serve_load.py ours=http://127.0.0.1:8080 peer=http://127.0.0.1:8081 --clients 1,2,4,8 --rounds 3

Every client asks for one answer after the other with a prompt of its own (about --prompt-tokens tokens, no
two alike, so that no cache of prefixes helps) and exactly --new-tokens new ones. Servers take turns, round by
round, so that a machine that slows down slows all of them. Standard library only.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
import urllib.parse
import urllib.request

WORDS = ("river stone table light window garden paper music winter summer story number letter mountain people "
         "water machine answer question small large early late green yellow quiet simple certain common river").split()


def make_prompt(rng, tokens):
    """Words of a closed list are about one token each."""
    words = [rng.choice(WORDS) for _ in range(max(1, tokens - 24))]
    return f"Note {rng.randrange(10**6)}. Continue this list of words with a long story: " + " ".join(words)


class Failure(Exception):
    pass


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers


async def body_pieces(reader, headers):
    if headers.get("transfer-encoding", "").lower() != "chunked":
        while piece := await reader.read(65536):
            yield piece
        return
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()


async def stream_one(server, body):
    """One answer: seconds to the first text, seconds to the end, output tokens, and the text."""
    url = urllib.parse.urlsplit(server["url"])
    data = json.dumps(body).encode()
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        key = f"Authorization: Bearer {server['key']}\r\n" if server["key"] else ""
        writer.write((f"POST {url.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n{key}"
                      f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
                      ).encode() + data)
        status, headers = await read_head(reader)
        first, tokens, text, buffer = None, None, [], b""
        async for piece in body_pieces(reader, headers):
            buffer += piece
            if status != 200:
                continue
            while (end := buffer.find(b"\n\n")) >= 0:
                event, buffer = buffer[:end], buffer[end + 2:]
                if not event.startswith(b"data:") or event[5:].strip() == b"[DONE]":
                    continue
                chunk = json.loads(event[5:])
                if "error" in chunk:
                    raise Failure(str(chunk["error"]))
                if (chunk.get("usage") or {}).get("completion_tokens") is not None:
                    tokens = chunk["usage"]["completion_tokens"]
                for choice in chunk.get("choices", ()):
                    delta = choice.get("delta", {}).get("content")
                    if delta:
                        first = first or time.perf_counter() - start
                        text.append(delta)
        if status != 200:
            raise Failure(f"status {status}: {buffer[:200].decode(errors='replace')}")
        total = time.perf_counter() - start
        if tokens is None or first is None:
            raise Failure("the stream told no text or no usage")
        return first, total, tokens, "".join(text)
    finally:
        writer.close()


async def client(server, args, rng, out, deadline):
    while True:
        body = {"model": server["model"], "stream": True, "stream_options": {"include_usage": True},
                "max_tokens": args.new_tokens, "ignore_eos": True, "temperature": args.temperature,
                "seed": rng.randrange(2**31),
                "messages": [{"role": "user", "content": make_prompt(rng, args.prompt_tokens)}]}
        out.append(await stream_one(server, body))
        if time.perf_counter() >= deadline:
            return


async def measure(server, n_clients, args, seed):
    """One round. Every client ends the answer it began, so the rate counts whole answers over the whole time."""
    out = []
    start = time.perf_counter()
    await asyncio.gather(*(client(server, args, random.Random(f"{seed} {n_clients} {i}"), out, start + args.seconds)
                           for i in range(n_clients)))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "answers": out}


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(rounds):
    answers = [answer for one in rounds for answer in one["answers"]]
    rates = [sum(tokens for _, _, tokens, _ in one["answers"]) / one["seconds"] for one in rounds]
    firsts = [first for first, _, _, _ in answers]
    users = [(tokens - 1) / max(1e-9, total - first) for first, total, tokens, _ in answers]
    return {"total_tokens_per_s": statistics.median(rates), "rates": rates, "answers": len(answers),
            "user_tokens_per_s": statistics.median(users),
            "ttft_p50_s": percentile(firsts, 0.5), "ttft_p95_s": percentile(firsts, 0.95)}


def model_of(url, key):
    request = urllib.request.Request(url.rstrip("/") + "/v1/models")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"][0]["id"]
    except OSError as error:
        sys.exit(f"serve_load: {url}: {error}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("servers", nargs="+", help="NAME=URL")
    parser.add_argument("--clients", default="1,2,4,8,16,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0, help="clients begin answers for so long (0: one each)")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--key", default="")
    parser.add_argument("--json", help="write all numbers to this file")
    args = parser.parse_args()
    args.clients = [int(word) for word in args.clients.split(",")]
    return args


def main():
    args = parse_arguments()
    servers = []
    for word in args.servers:
        name, _, url = word.partition("=")
        if not url:
            sys.exit(f"serve_load: want NAME=URL, found '{word}'")
        servers.append({"name": name, "url": url, "key": args.key, "model": model_of(url, args.key)})
    for server in servers:  # first touches of memory belong to nobody's numbers
        asyncio.run(measure(server, 1, args, "warm up"))
    results = []
    print(f"{'server':12} {'clients':>7} {'total tok/s':>12} {'user tok/s':>11} {'ttft p50 s':>11} {'ttft p95 s':>11}")
    for n_clients in args.clients:
        rounds = {server["name"]: [] for server in servers}
        for turn in range(args.rounds):
            for server in servers if turn % 2 == 0 else servers[::-1]:
                rounds[server["name"]].append(asyncio.run(measure(server, n_clients, args, turn)))
        for server in servers:
            row = {"server": server["name"], "clients": n_clients, **summary(rounds[server["name"]])}
            results.append(row)
            print(f"{row['server']:12} {n_clients:7} {row['total_tokens_per_s']:12.1f} {row['user_tokens_per_s']:11.1f} "
                  f"{row['ttft_p50_s']:11.3f} {row['ttft_p95_s']:11.3f}", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"arguments": {key: value for key, value in vars(args).items() if key != "key"},
                       "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
