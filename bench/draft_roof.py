#!/usr/bin/env python3
"""How far a drafter's pass is from what the machine allows.

usage: bench/draft_roof.py MODEL... [--layers N] [--draft-vocab N] [--rank N] [--threads N] [--rounds N] [--binary FILE]

Runs bench/roofs.cc and draft_share in turn (roofs, drafts, roofs, drafts, ...). A round of drafts cannot be faster than
the longer of two times: reading its weights and cached rows, and its products at the int8 peak. Where the weights are
read from decides about the first, so there are two roofs. "Cache": the drafter's weights stay in the last-level cache, and
a buffer of that size is read again and again. "Memory": the target's pass before has driven them out, and they stream
from memory. Drafts are timed both ways too: behind a pass of the target, as a server runs them, and alone, one round
behind the other, where they find their weights as they left them. Prints the medians over the rounds, with the smallest
and largest quotient: drafts behind a pass over either roof, drafts alone over the roof of the cache.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent


def build_roofs():
    binary = BENCH / "out" / "roofs"
    binary.parent.mkdir(exist_ok=True)
    source = BENCH / "roofs.cc"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["c++", "-O3", "-march=native", "-std=c++20", "-pthread", str(source), "-o", str(binary)], check=True)
    return binary


def run_lines(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"draft_roof: error: {command[0]}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def roof_ms(row, read_gb_per_s, int8_gop_per_s, source):
    """(milliseconds, what binds): reading from `source` or multiplying."""
    read = row["bytes"] / (read_gb_per_s * 1e9) * 1e3
    multiply = row["ops"] / (int8_gop_per_s * 1e9) * 1e3
    return (read, source) if read > multiply else (multiply, "int8")


def measure(binary, roofs_binary, model, options):
    """{sequences: [one dict per round]}: draft_ms, warm_draft_ms, pass_ms, and the roofs "cache" and "memory"."""
    found = {}
    megabytes = 10
    for _ in range(options.rounds):
        roofs = run_lines([roofs_binary, options.threads, 1, megabytes])[0]
        rows = run_lines([binary, model, options.threads, options.layers, options.draft_vocab, options.rank, 41])
        megabytes = rows[0]["bytes"] * 1e-6
        for row in rows:
            row["cache"] = roof_ms(row, roofs["cached_read_gb_per_s"], roofs["int8_gop_per_s"], "cache")
            row["memory"] = roof_ms(row, roofs["read_gb_per_s"], roofs["int8_gop_per_s"], "memory")
            found.setdefault(row["sequences"], []).append(row)
    return found


def times_text(rounds, time, roof):
    times = [row[time] / row[roof][0] for row in rounds]
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def roof_text(rounds, roof):
    binds = statistics.mode(row[roof][1] for row in rounds)
    return f"{statistics.median(row[roof][0] for row in rounds):.3f} ({binds})"


def table_line(model, sequences, rounds):
    def median(key):
        return statistics.median(row[key] for row in rounds)

    share = statistics.median(row["draft_ms"] / row["pass_ms"] for row in rounds)
    return (f"| {Path(model).name} | {sequences} | {median('draft_ms'):.3f} | {median('warm_draft_ms'):.3f} "
            f"| {roof_text(rounds, 'cache')} | {times_text(rounds, 'draft_ms', 'cache')} "
            f"| {times_text(rounds, 'warm_draft_ms', 'cache')} "
            f"| {roof_text(rounds, 'memory')} | {times_text(rounds, 'draft_ms', 'memory')} | {100 * share:.1f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--layers", type=int, default=1, help="of the drafter")
    parser.add_argument("--draft-vocab", type=int, default=8192, help="tokens it can draft; the target's vocabulary at most")
    parser.add_argument("--rank", type=int, default=64, help="of its sequential head")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", default=str(BENCH.parent / "build" / "release" / "bench" / "draft_share"))
    options = parser.parse_args()
    if not Path(options.binary).exists():
        sys.exit(f"draft_roof: error: {options.binary} does not exist; build the target draft_share")
    roofs_binary = build_roofs()
    print("| model | sequences | drafts behind a pass, ms | drafts alone, ms | roof of the cache, ms (bound by) | times it, behind a pass "
          "| times it, alone | roof of memory, ms (bound by) | times it, behind a pass | share of the target's pass |")
    print("|---" * 10 + "|")
    for model in options.models:
        for sequences, rounds in measure(options.binary, roofs_binary, model, options).items():
            print(table_line(model, sequences, rounds), flush=True)


if __name__ == "__main__":
    main()
