#!/usr/bin/env python3
"""Speed of verify policies on prompts, taken in turn: every prompt runs A B C C B A, one process each.

    bench/spec_speed.py -d drafters/smollm2-135m-instruct/dspark.gguf PROMPTS.jsonl... [--limit 4]
        [--policies off,adaptive,fixed:3,fixed:7] [--dspark build/release/dspark] [-m MODEL] [--temp 0]

Prompt files hold lines {"prompt": ...}; a file is a task. Prints for each task and policy the median over
prompts of tokens/s and of the ratio to the first policy in the same round, tokens per step, and whether all
texts were the same. Single user: batch of one.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path


def run(args, policy, prompt):
    command = [args.dspark, "run", "--json", "-p", prompt, "--temp", str(args.temp), "--seed", "1",
               "-n", str(args.max_tokens), "-t", str(args.threads)]
    if args.model:
        command += ["-m", args.model]
    if policy != "off":
        command += ["-d", args.drafter, "--spec", policy]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"spec_speed: {' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measure(args, policies, prompt):
    """{policy: ([tokens/s of both runs], tokens per step)}, and whether the texts agree."""
    results = {policy: ([], []) for policy in policies}
    texts = set()
    for policy in policies + policies[::-1]:
        out = run(args, policy, prompt)
        if out["timings"]["generated_tokens"] < 8:
            return None, True
        texts.add(tuple(out["tokens"]))
        results[policy][0].append(out["timings"]["generated_tokens_per_s"])
        results[policy][1].append(out["speculation"].get("tokens_per_step", 1.0) if policy != "off" else 1.0)
    return results, len(texts) == 1


def main():
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
    args = parser.parse_args()
    policies = args.policies.split(",")
    print("| task | " + " | ".join(f"{p}, tok/s | x {policies[0]}, tokens/step" for p in policies) + " | same text |")
    print("|---" * (2 + 2 * len(policies)) + "|")
    macro = {policy: [] for policy in policies}
    for path in args.prompts:
        prompts = [json.loads(line)["prompt"] for line in path.read_text().splitlines() if line.strip()]
        speeds = {policy: [] for policy in policies}
        ratios = {policy: [] for policy in policies}
        steps = {policy: [] for policy in policies}
        all_same = True
        for prompt in prompts[:args.limit]:
            results, same = measure(args, policies, prompt)
            all_same &= same
            if results is None:
                continue
            base = statistics.mean(results[policies[0]][0])
            for policy in policies:
                speeds[policy].append(statistics.mean(results[policy][0]))
                ratios[policy].append(statistics.mean(results[policy][0]) / base)
                steps[policy].append(statistics.mean(results[policy][1]))
        cells = []
        for policy in policies:
            ratio = statistics.median(ratios[policy])
            macro[policy].append(ratio)
            cells.append(f"{statistics.median(speeds[policy]):.0f} ({min(speeds[policy]):.0f}-{max(speeds[policy]):.0f}) "
                         f"| {ratio:.2f}, {statistics.mean(steps[policy]):.2f}")
        print(f"| {path.stem} | " + " | ".join(cells) + f" | {'yes' if all_same else 'NO'} |", flush=True)
    print("| mean of tasks | " + " | ".join(f"| {statistics.mean(macro[policy]):.2f}" for policy in policies) + " | |")


if __name__ == "__main__":
    main()
