#!/usr/bin/env python3
"""Load on OpenAI-compatible servers: streaming clients, total and per-user speed, time to the first token.

    bench/serve_load.py ours=http://127.0.0.1:8080 peer=http://127.0.0.1:8081 --clients 1,2,4,8 --rounds 3
    bench/serve_load.py --launch [--llama-server PATH] [--ik-server PATH] --prompt-file PROMPTS.jsonl
    bench/serve_load.py --overhead --prompt-file PROMPTS.jsonl

Every client asks with a prompt of its own (about --prompt-tokens tokens, template included) for exactly
--new-tokens new ones. Servers take turns, round by round, with the same prompts, so that a machine that slows
down slows all of them. --launch starts the servers itself, with equal threads, slots and context, and stops
them; --overhead compares `dspark serve` with the same engine without HTTP. Standard library only.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

import serve_client
import serve_overhead
import serve_prompts
import serve_servers

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
DRAFTER = ROOT / "drafters" / "smollm2-135m-instruct" / "dspark.gguf"


async def client(server, args, prompts, out, deadline):
    for prompt in prompts:
        out.append(await serve_client.stream_one(server, serve_client.question(prompt, args, server)))
        if time.perf_counter() >= deadline:
            return


async def measure(server, n_clients, args, prompts):
    """One round. Every client ends the answer it began, so the rate counts whole answers over the whole time."""
    out = []
    start = time.perf_counter()
    await asyncio.gather(*(client(server, args, prompts[i::n_clients], out, start + args.seconds) for i in range(n_clients)))
    return {"seconds": time.perf_counter() - start, "answers": out}


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(rounds):
    answers = [answer for one in rounds for answer in one["answers"]]
    rates = [sum(answer["tokens"] for answer in one["answers"]) / one["seconds"] for one in rounds]
    firsts = [answer["first_s"] for answer in answers]
    users = [(answer["tokens"] - 1) / max(1e-9, answer["total_s"] - answer["first_s"]) for answer in answers]
    prompts = [answer["prompt_tokens"] for answer in answers]
    reports = [answer["speculation"] for answer in answers if answer["speculation"]]
    return {"total_tokens_per_s": statistics.median(rates), "rates": rates, "answers": len(answers),
            "user_tokens_per_s": statistics.median(users),
            "ttft_p50_s": percentile(firsts, 0.5), "ttft_p95_s": percentile(firsts, 0.95),
            "prompt_tokens": {"mean": statistics.mean(prompts), "min": min(prompts), "max": max(prompts)},
            "new_tokens": sum(answer["tokens"] for answer in answers) / len(answers),
            "speculation": {key: sum(report[key] for report in reports) for key in reports[0]} if reports else None}


def compare(servers, args, prompts):
    """A row for every number of clients and server."""
    for server in servers:  # first touches of memory belong to nobody's numbers
        asyncio.run(measure(server, 1, args, prompts[-1:]))
    results, used = [], 0
    print(f"{'server':12} {'clients':>7} {'total tok/s':>12} {'user tok/s':>11} {'ttft p50 s':>11} {'ttft p95 s':>11}")
    for n_clients in args.clients:
        rounds = {server["name"]: [] for server in servers}
        for turn in range(args.rounds):
            share = prompts[used:used + n_clients * args.answers]
            used += len(share)
            for server in servers if turn % 2 == 0 else servers[::-1]:
                rounds[server["name"]].append(asyncio.run(measure(server, n_clients, args, share)))
        for server in servers:
            row = {"server": server["name"], "clients": n_clients, **summary(rounds[server["name"]])}
            results.append(row)
            print(f"{row['server']:12} {n_clients:7} {row['total_tokens_per_s']:12.1f} {row['user_tokens_per_s']:11.1f} "
                  f"{row['ttft_p50_s']:11.3f} {row['ttft_p95_s']:11.3f}", flush=True)
    return results


def markdown(results):
    """Speeds, then the first server against the better of the others."""
    lines = ["| server | clients | total tok/s | user tok/s | TTFT p50 / p95 s | prompt tokens | accepted / verified |",
             "|---|---|---|---|---|---|---|"]
    for row in results:
        asked, spec = row["prompt_tokens"], row["speculation"]
        lines.append(f"| {row['server']} | {row['clients']} | {row['total_tokens_per_s']:.1f} | {row['user_tokens_per_s']:.1f} | "
                     f"{row['ttft_p50_s']:.3f} / {row['ttft_p95_s']:.3f} | {asked['mean']:.0f} ({asked['min']}-{asked['max']}) | "
                     f"{str(spec['accepted']) + ' / ' + str(spec['verified']) if spec else ''} |")
    first = results[0]["server"]
    if any(row["server"] != first for row in results):
        lines += ["", f"| clients | {first}, total over the best other | TTFT p50 over the best other |", "|---|---|---|"]
        for mine in (row for row in results if row["server"] == first):
            others = [row for row in results if row["clients"] == mine["clients"] and row["server"] != first]
            lines.append(f"| {mine['clients']} | {mine['total_tokens_per_s'] / max(o['total_tokens_per_s'] for o in others):.2f} | "
                         f"{mine['ttft_p50_s'] / min(o['ttft_p50_s'] for o in others):.2f} |")
    return "\n".join(lines) + "\n"


def machine():
    try:
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} CPUs"


def add_launch_options(parser):
    parser.add_argument("--launch", action="store_true", help="start the servers, `dspark serve` first")
    parser.add_argument("--overhead", action="store_true", help="compare `dspark serve` with `dspark bench load`")
    parser.add_argument("--dspark", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--llama-server", help="llama-server of your build of llama.cpp")
    parser.add_argument("--ik-server", help="llama-server of your build of ik_llama.cpp")
    parser.add_argument("-m", "--model", default=str(MODEL))
    parser.add_argument("-d", "--drafter", default=str(DRAFTER))
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=0, help="of every server (0: as many as the most clients)")
    parser.add_argument("--context", type=int, default=512, help="tokens of a slot")
    for name in ("ours", "llama", "ik"):
        parser.add_argument(f"--{name}-args", default="", help="further options of that server, one string")
    parser.add_argument("--requests", type=int, default=0, help="--overhead: measured ones of a run (0: 3 a client, at least 12)")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", help="NAME=URL")
    parser.add_argument("--clients", default="1,2,4,8,16,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0, help="clients begin answers for so long (0: one each)")
    parser.add_argument("--answers", type=int, default=0, help="prompts of a client in a round (0: 1, with --seconds 16)")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--prompt-file", action="append", help='prompts, lines {"prompt": ...}, or any text; repeatable')
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of prompts")
    parser.add_argument("--key", default="")
    parser.add_argument("--out", help="folder for serve_load.md, serve_load.json and logs (with --launch: bench/out/serve)")
    parser.add_argument("--json", help="write all numbers to this file")
    add_launch_options(parser)
    args = parser.parse_args()
    args.clients = [int(word) for word in args.clients.split(",")]
    args.slots = args.slots or max(args.clients)
    args.answers = args.answers or (16 if args.seconds > 0 else 1)
    if bool(args.servers) == (args.launch or args.overhead):
        parser.error("want NAME=URL..., --launch or --overhead")
    return args


def named_servers(args):
    servers = []
    for word in args.servers:
        name, _, url = word.partition("=")
        if not url:
            sys.exit(f"serve_load: want NAME=URL, found '{word}'")
        servers.append({"name": name, "url": url, "key": args.key})
        servers[-1]["model"] = serve_client.call(servers[-1], "/v1/models")["data"][0]["id"]
    return servers


def run(args, out):
    """(results, table as markdown)."""
    if args.overhead:
        results = serve_overhead.measure(args, out)
        return results, serve_overhead.markdown(results)
    count = sum(args.clients) * args.rounds * args.answers + 1
    if args.launch:
        with serve_servers.Fleet(serve_servers.commands(args), out) as fleet:
            servers = [one.server for one in fleet]
            results = compare(servers, args, serve_prompts.make_prompts(args, servers[0], count))
    else:
        servers = named_servers(args)
        results = compare(servers, args, serve_prompts.make_prompts(args, servers[0], count))
    return results, markdown(results)


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("serve_load: stopped"))  # so that servers are stopped too
    out = Path(args.out or ROOT / "bench" / "out" / "serve")
    write = bool(args.out) or args.launch or args.overhead
    if write:
        out.mkdir(parents=True, exist_ok=True)
    try:
        results, table = run(args, out)
    except (serve_client.Failure, OSError) as error:
        sys.exit(f"serve_load: {error}")
    report = {"machine": machine(), "arguments": {key: value for key, value in vars(args).items() if key != "key"},
              "results": results}
    name = "serve_overhead" if args.overhead else "serve_load"
    files = [out / f"{name}.json"] if write else []
    for path in files + ([Path(args.json)] if args.json else []):
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if write:
        head = f"{report['machine']}; {args.prompt_tokens} prompt tokens asked for, {args.new_tokens} new, {args.rounds} rounds\n\n"
        (out / f"{name}.md").write_text(head + table, encoding="utf-8")
        print(f"\n{table}\nwritten to {out}/{name}.md and .json")


if __name__ == "__main__":
    main()
