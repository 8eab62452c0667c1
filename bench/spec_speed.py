#!/usr/bin/env python3
"""Speed of verify policies on prompts, taken in turn: every prompt runs A B C C B A, one process each.

    bench/spec_speed.py -d drafters/smollm2-135m-instruct/dspark.gguf PROMPTS.jsonl... [--limit 4]
        [--policies off,adaptive,fixed:3,fixed:7] [--dspark build/release/dspark] [-m MODEL] [--temp 0]
    bench/spec_speed.py -m MODEL -d DRAFTER --policies off,adaptive --peers [--peer NAME=PROGRAM] PROMPTS.jsonl...

Prompt files hold lines {"prompt": ...}; a file is a task. Prints for each task and policy the median over
prompts of tokens/s and of the ratio to the first policy in the same round, tokens per step, and whether all
texts were the same. Single user: batch of one.

With --peers, llama.cpp (bench/compare_peers.py --install) and every --peer decode plainly in the middle of each
round, behind 128 tokens; before and behind them the roof of plain decoding is measured, weights and cache over the
bandwidth of memory. A second table has the last policy over the better peer and over the roof of the same round.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import compare_peers
from gguf_sizes import pass_work
from peer_report import roof_of, summary

PEER_DEPTH = 128
PEER_PLAN = {"rows": [1], "pass_depths": [PEER_DEPTH], "prefill": 16, "depths": [PEER_DEPTH], "repeats": 3}
ROOF_SECONDS = 0.5


def run(args, policy, prompt):
    command = [args.dspark, "run", "--json", "-p", prompt, "--temp", str(args.temp), "--seed", "1",
               "-n", str(args.max_tokens), "-t", str(args.threads)]
    if args.model:
        command += ["-m", args.model]
    if args.raw:
        command.append("--raw")
    if policy != "off":
        command += ["-d", args.drafter, "--spec", policy]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"spec_speed: {' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def decode_speed(rows):
    """Tokens per second of the row of `dspark bench --json` that decodes."""
    return next(row["tokens_per_s"] for row in rows if row["test"] == "decode")


class Others:
    """Peers that decode plainly, and the roof of plain decoding."""

    def __init__(self, args):
        self.model, self.threads = args.model, args.threads
        args.binary, args.no_peer = args.dspark, False
        self.peers = compare_peers.read_engines(args)[1:]
        (compare_peers.BENCH / "out").mkdir(exist_ok=True)
        self.roofs_binary = compare_peers.build_roofs()
        self.work = pass_work(args.model)

    def roofs(self):
        return compare_peers.measure_roofs(self.roofs_binary, self.threads, ROOF_SECONDS)

    def measure(self):
        """({peer: tokens/s}, tokens/s at the roof)"""
        speeds, roofs = {peer.name: [] for peer in self.peers}, [self.roofs()]
        for peer in self.peers + self.peers[::-1]:
            speeds[peer.name].append(decode_speed(peer.bench(self.model, self.threads, PEER_PLAN)["rows"]))
        roofs.append(self.roofs())
        summaries = {name: summary([found[name] for found in roofs]) for name in ("read_gb_per_s", "int8_gop_per_s")}
        return ({name: statistics.mean(values) for name, values in speeds.items()},
                roof_of(f"decode {PEER_DEPTH}", self.work, summaries))


def measure(args, policies, prompt, others=None):
    """{policy: ([tokens/s of both runs], tokens per step)}, whether the texts agree, and what `others` measured."""
    results = {policy: ([], []) for policy in policies}
    texts = set()
    beside = None
    for i, policy in enumerate(policies + policies[::-1]):
        if others and i == len(policies):
            beside = others.measure()
        out = run(args, policy, prompt)
        texts.add(tuple(out["tokens"]))
        if out["timings"]["generated_tokens"] < 8:
            return None, len(texts) == 1, None
        results[policy][0].append(out["timings"]["generated_tokens_per_s"])
        results[policy][1].append(out["speculation"].get("tokens_per_step", 1.0) if policy != "off" else 1.0)
    return results, len(texts) == 1, beside


class Task:
    """What the prompts of one task gave."""

    def __init__(self, name, policies):
        self.name, self.policies = name, policies
        self.speeds = {policy: [] for policy in policies}
        self.ratios = {policy: [] for policy in policies}
        self.steps = {policy: [] for policy in policies}
        self.peers, self.over_peer, self.over_roof, self.roof = {}, [], [], []
        self.all_same = True

    def add(self, results, beside):
        base = statistics.mean(results[self.policies[0]][0])
        for policy in self.policies:
            speed = statistics.mean(results[policy][0])
            self.speeds[policy].append(speed)
            self.ratios[policy].append(speed / base)
            self.steps[policy].append(statistics.mean(results[policy][1]))
        if beside:
            speeds, roof = beside
            for name, value in speeds.items():
                self.peers.setdefault(name, []).append(value)
            self.roof.append(roof)
            self.over_peer.append(speed / max(speeds.values()))
            self.over_roof.append(speed / roof)

    def row(self):
        cells = []
        for policy in self.policies:
            speeds = self.speeds[policy]
            cells.append(f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f}) "
                         f"| {statistics.median(self.ratios[policy]):.2f}, {statistics.mean(self.steps[policy]):.2f}")
        return f"| {self.name} | " + " | ".join(cells) + f" | {'yes' if self.all_same else 'NO'} |"

    def peer_row(self):
        last = statistics.median(self.speeds[self.policies[-1]])
        peers = " | ".join(f"{statistics.median(values):.0f}" for values in self.peers.values())
        return (f"| {self.name} | {last:.0f} | {peers} | {statistics.median(self.roof):.0f} | "
                f"{statistics.median(self.over_peer):.2f} | {statistics.median(self.over_roof):.2f} |")


def print_peers(tasks, policy):
    names = list(tasks[0].peers)
    print(f"\n| task | {policy}, tok/s | " + " | ".join(f"{name} plain" for name in names)
          + " | roof of plain decoding | times the better peer | times the roof |")
    print("|---" * (5 + len(names)) + "|")
    for task in tasks:
        print(task.peer_row())
    means = (statistics.mean(statistics.median(values) for values in column)
             for column in ([task.over_peer for task in tasks], [task.over_roof for task in tasks]))
    print("| mean of tasks |" + " |" * (2 + len(names)) + "".join(f" {mean:.2f} |" for mean in means))


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+", type=Path)
    parser.add_argument("-d", "--drafter", required=True)
    parser.add_argument("-m", "--model")
    parser.add_argument("--dspark", default="build/release/dspark")
    parser.add_argument("--policies", default="off,adaptive,fixed:3,fixed:7")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--temp", type=float, default=0.0)
    parser.add_argument("--raw", action="store_true", help="continue prompts as they are, for base models")
    parser.add_argument("--peers", action="store_true", help="llama.cpp's plain decoding and the roof beside each prompt")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM",
                        help="with --peers: another one, as of compare_peers.py")
    args = parser.parse_args()
    if args.peers and not args.model:
        parser.error("--peers: needs the model's file, -m")
    if args.peer and not args.peers:
        parser.error("--peer: needs --peers")
    return args


def main():
    args = read_options()
    policies = args.policies.split(",")
    others = Others(args) if args.peers else None
    print("| task | " + " | ".join(f"{p}, tok/s | x {policies[0]}, tokens/step" for p in policies) + " | same text |")
    print("|---" * (2 + 2 * len(policies)) + "|")
    tasks = []
    for path in args.prompts:
        prompts = [json.loads(line)["prompt"] for line in path.read_text().splitlines() if line.strip()]
        task = Task(path.stem, policies)
        for prompt in prompts[:args.limit]:
            results, same, beside = measure(args, policies, prompt, others)
            task.all_same &= same
            if results is not None:
                task.add(results, beside)
        if not task.steps[policies[0]]:
            print(f"spec_speed: {path}: no answer has 8 tokens, left out", file=sys.stderr)
            continue
        tasks.append(task)
        print(task.row(), flush=True)
    if not tasks:
        sys.exit("spec_speed: nothing was measured")
    print("| mean of tasks | " + " | ".join(
        f"| {statistics.mean(statistics.median(task.ratios[policy]) for task in tasks):.2f}" for policy in policies) + " | |")
    if others:
        print_peers(tasks, policies[-1])


if __name__ == "__main__":
    main()
