#!/usr/bin/env python3
"""How far a drafter's pass is from what the machine allows.

usage: bench/draft_roof.py MODEL... [--threads N] [--rounds N] [--binary FILE]

Runs bench/roofs.cc and draft_share in turn (roofs, drafts, roofs, drafts, ...). The roof of a round of drafts is the
longer of two times: its weights and cached rows at the speed at which a buffer of that size is read again and again (the
drafter's weights stay in the last-level cache, if it is large enough), and its products at the int8 peak. Prints the
medians over the rounds, with the smallest and largest quotient.
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


def roof_ms(row, roofs):
    """(milliseconds, what binds)"""
    read = row["bytes"] / (roofs["cached_read_gb_per_s"] * 1e9) * 1e3
    multiply = row["ops"] / (roofs["int8_gop_per_s"] * 1e9) * 1e3
    return (read, "cache") if read > multiply else (multiply, "int8")


def measure(binary, roofs_binary, model, options):
    """{sequences: [(draft ms, roof ms, what binds, pass ms)]}, one entry per round."""
    found = {}
    megabytes = 10
    for _ in range(options.rounds):
        roofs = run_lines([roofs_binary, options.threads, 1, megabytes])[0]
        rows = run_lines([binary, model, options.threads, 1, 8192, 64, 41])
        megabytes = rows[0]["bytes"] * 1e-6
        for row in rows:
            limit, binds = roof_ms(row, roofs)
            found.setdefault(row["sequences"], []).append((row["draft_ms"], limit, binds, row["pass_ms"]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", default=str(BENCH.parent / "build" / "release" / "bench" / "draft_share"))
    options = parser.parse_args()
    if not Path(options.binary).exists():
        sys.exit(f"draft_roof: error: {options.binary} does not exist; build the target draft_share")
    roofs_binary = build_roofs()
    print("| model | sequences | drafts, ms | roof, ms (bound by) | times the roof | share of the target's pass |")
    print("|---|---|---|---|---|---|")
    for model in options.models:
        for sequences, rounds in measure(options.binary, roofs_binary, model, options).items():
            times = [draft / limit for draft, limit, _, _ in rounds]
            shares = [draft / whole for draft, _, _, whole in rounds]
            binds = statistics.mode(binds for _, _, binds, _ in rounds)
            print(f"| {Path(model).name} | {sequences} | {statistics.median(r[0] for r in rounds):.3f} "
                  f"| {statistics.median(r[1] for r in rounds):.3f} ({binds}) "
                  f"| {statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f}) "
                  f"| {100 * statistics.median(shares):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
