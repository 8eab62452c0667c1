#!/usr/bin/env python3
"""Verify policies under load: all tables and pictures of docs/benchmarks.md, section Load, by one command.

    bench/load_sweep.py PROMPTS.jsonl... [--quick] [-m MODEL] [-d DRAFTER] [--out bench/out/load]

Runs `dspark bench load` with the learned drafter, with prompt lookup and with the same drafter's shape full of noise
(policies in turn inside each run, see there), a burst 1 -> 16 -> 1, then records rounds and simulates schedulers on
them with the costs measured here and with those of a GPU. Writes load.md, JSON reports and SVG pictures into the
output folder. Prompt files hold lines {"prompt": ...}. The machine should do nothing else meanwhile.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAFTER = ROOT / "drafters" / "smollm2-135m-instruct" / "dspark.gguf"


def run(args, name, command, out):
    """Runs one report into out/NAME.json and its pictures into out/NAME/."""
    print(f"{name}: {' '.join(str(word) for word in command)}", file=sys.stderr, flush=True)
    start = time.monotonic()
    done = subprocess.run([args.dspark, *map(str, command), "--json", str(out / f"{name}.json"), "--plot", str(out / name)],
                          stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, file=sys.stderr, flush=True)
    if done.returncode != 0:
        sys.exit(f"load_sweep: {name} failed with status {done.returncode}")
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return json.loads((out / f"{name}.json").read_text())


def sweep_table(report, key="concurrency"):
    """Rows: loads; columns: policies with total tokens/s and tokens/s of one user."""
    policies = report["policies"]
    cells = {(cell[key], cell["policy"]): cell for cell in report["cells"]}
    verdicts = {verdict[key]: verdict for verdict in report["verdicts"]}
    lines = ["| clients | " + " | ".join(policies) + " | adaptive / best fixed | adaptive / off |",
             "|---" * (len(policies) + 3) + "|"]
    for load in dict.fromkeys(cell[key] for cell in report["cells"]):
        row = [f"{load:g}"]
        for policy in policies:
            speed = cells[load, policy]["tokens_per_s"]
            # A simulation has one value, a measurement one for every round.
            total = f"{speed['median']:.0f} ({speed['min']:.0f}-{speed['max']:.0f})" if isinstance(speed, dict) else f"{speed:.0f}"
            row.append(f"{total}, {cells[load, policy]['user_tokens_per_s']:.0f}")
        verdict = verdicts.get(load)
        row += [f"{verdict['adaptive_over_best_fixed']:.3f} ({verdict['best_fixed']})",
                f"{verdict['adaptive_over_off']:.3f}"] if verdict else ["", ""]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def latency_table(report):
    """Adaptive beside off: waiting and where the time goes."""
    lines = ["| clients | policy | TTFT p50 / p95 ms | token p50 / p95 / p99 ms | tokens/round | verified/seq | measured / predicted | "
             "draft, pass, commit, loop % |", "|---" * 8 + "|"]
    for cell in report["cells"]:
        if cell["policy"] not in ("off", "adaptive"):
            continue
        last = sorted(cell["rounds"], key=lambda r: r["tokens_per_s"])[len(cell["rounds"]) // 2]
        share = [100 * last[part] / last["seconds"] for part in ("draft_s", "forward_s", "commit_s", "loop_s")]
        lines.append(f"| {cell['concurrency']:g} | {cell['policy']} | {last['ttft_s']['p50'] * 1e3:.0f} / {last['ttft_s']['p95'] * 1e3:.0f} | "
                     + " / ".join(f"{last['inter_token_s'][q] * 1e3:.2f}" for q in ("p50", "p95", "p99"))
                     + f" | {last['speculation']['tokens_per_round']:.2f} | {last['verified_per_sequence']:.2f} | "
                     f"{last['measured_over_predicted']:.2f} | " + ", ".join(f"{s:.1f}" for s in share) + " |")
    return lines


def burst_table(report):
    lines = ["| policy | clients | tokens/s | verified/seq | steps until steady | longest wait for a token, ms |", "|---" * 6 + "|"]
    for burst in report["bursts"]:
        for phase in burst["rounds"][-1]:
            lines.append(f"| {burst['policy']} | {phase['clients']} | {phase['tokens_per_s']:.0f} | {phase['verified_per_sequence']:.2f} | "
                         f"{phase['steps_to_follow']} | {burst['longest_wait_s'] * 1e3:.0f} |")
    return lines


def texts_line(report):
    texts = report["texts"]
    return (f"{texts['compared']} answers ({texts['compared_tokens']} tokens) compared with the first run of their request: "
            f"{texts['different']} differ.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+", type=Path)
    parser.add_argument("-m", "--model")
    parser.add_argument("-d", "--drafter", default=str(DRAFTER))
    parser.add_argument("--dspark", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "load")
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--max-tokens", default="32-96")
    parser.add_argument("--concurrency", default="1,2,4,8,16,32")
    parser.add_argument("--policies", default="off,fixed:1,fixed:2,fixed:3,fixed:5,fixed:7,adaptive")
    parser.add_argument("--drafters", default="learned,lookup,noise", help="those of the sweep")
    parser.add_argument("--quick", action="store_true", help="one short round, only to see that everything works")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.max_tokens, args.concurrency, args.policies = "1", "8-16", "1,4", "off,fixed:3,adaptive"
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["-t", args.threads, *(["-m", args.model] if args.model else []), "-n", args.max_tokens, "--seed", "1", "-v"]
    sweep = [*common, "--concurrency", args.concurrency, "-r", args.rounds]
    policies = ["--policies", args.policies]
    if args.quick:
        sweep += ["--requests", "6", "--warmup", "4"]
    text = [f"Load, {time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {args.threads} threads", ""]
    # Fixed lengths of noise are known to lose: what is asked is whether adaptive notices.
    for name, title, drafter in (("learned", "Learned drafter", ["-d", args.drafter, *policies]),
                                 ("lookup", "Prompt lookup", ["-d", "ngram", *policies]),
                                 ("noise", "A drafter of noise",
                                  ["-d", args.drafter, "--random-drafter", "--policies", "off,adaptive"])):
        if name not in args.drafters.split(","):
            continue
        report = run(args, name, ["bench", "load", *sweep, *drafter, *args.prompts], args.out)
        text += [f"**{title}**: total tokens/s (slowest-fastest round), tokens/s of one user", "", *sweep_table(report), "",
                 *latency_table(report), "", texts_line(report), ""]
    seconds = "1" if args.quick else "6"
    report = run(args, "burst", ["bench", "load", *common, "-r", "1", "--burst", "1,16,1", "--phase-seconds", seconds, "--policies",
                                 "off,fixed:7,adaptive", "-d", args.drafter, *args.prompts], args.out)
    text += ["**Burst** 1, 16, 1 clients", "", *burst_table(report), "", texts_line(report), ""]
    trace = args.out / "rounds.jsonl"
    subprocess.run([args.dspark, "bench", "load", *common, "--requests", "8" if args.quick else "64", "-d", args.drafter, "--record",
                    str(trace), *map(str, args.prompts)], check=True)
    wide = "1,16,256" if args.quick else "1,4,16,64,256,1024"
    for name, title, costs in (("simulated-here", "Simulated with the costs measured here", ["--costs", args.out / (args.drafters.split(",")[0] + ".json")]),
                               ("simulated-gpu", "Simulated on a GPU-like curve", ["--curve", "gpu"])):
        report = run(args, name, ["bench", "schedule", "--trace", trace, *costs, "--concurrency", wide], args.out)
        text += [f"**{title}**: total tokens/s, tokens/s of one user", "", *sweep_table(report), ""]
    (args.out / "load.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
