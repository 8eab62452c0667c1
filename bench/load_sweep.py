#!/usr/bin/env python3
"""Verify policies under load: all tables and pictures of docs/benchmarks.md, section Load, by one command.

    bench/load_sweep.py PROMPTS.jsonl... [--quick] [-m MODEL] [-d DRAFTER] [--out bench/out/load] [--parts learned,burst]

Parts: `learned`, `lookup` and `noise` (the learned drafter, prompt lookup, the learned drafter's shape full of noise; a row
for every number of clients), `burst` (1, 16, 1 clients), `poisson` and `bursty` (open arrivals at a moderate load) and
`simulated` (rounds are recorded, and schedulers simulated on them with the costs measured here and with those of a GPU).
Policies take turns inside each run, see docs/benchmarks.md, and all texts are compared with runs of every request alone.

First a short look at every number of clients tells how fast the machine is; the number of requests follows from it, so that
every row takes about --row-seconds. Writes load.md, JSON reports and SVG pictures into the output folder. What is there
already from the same command, program, model, drafter and prompts is kept, so a run that was interrupted goes on where it
was: with 240 seconds a row, everything takes about an hour and a half. Prompt files hold lines {"prompt": ...}. The machine
should do nothing else meanwhile.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import load_pictures
import load_tables

ROOT = Path(__file__).resolve().parent.parent
DRAFTER = ROOT / "drafters" / "smollm2-135m-instruct" / "dspark.gguf"
PARTS = ("learned", "lookup", "noise", "burst", "poisson", "bursty", "simulated")
TITLES = {"learned": "Learned drafter", "lookup": "Prompt lookup", "noise": "A drafter of noise",
          "poisson": "Poisson arrivals", "bursty": "Bursty arrivals"}
MODERATE_CLIENTS = 8  # open arrivals ask for half of what so many clients get without drafts
LEAST_REQUESTS, QUICK_REQUESTS = 12, 6
MARK = ".done"


def count_requests(row_s, tokens_per_s, clients, n_runs, answer_tokens):
    """Measured requests of one run, so that n_runs of them, one for every policy and round, take row_s together.

    Clients also begin with an unmeasured answer each and go on until the last measured one ends: about one answer
    per client. Policies that draft where it does not pay are slower than `off`, by which tokens_per_s was
    measured; others are faster.
    """
    tokens = row_s * tokens_per_s / (1.2 * n_runs)
    return max(LEAST_REQUESTS, 2 * clients, round(tokens / answer_tokens) - clients)


def file_mark(path):
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Sweep:
    """Runs parts of the sweep, unless the output folder has them already."""

    def __init__(self, args):
        self.args, self.out = args, args.out
        self.loads = [int(load) for load in args.concurrency.split(",")]
        self.common = ["-t", args.threads, *(["-m", args.model] if args.model else []), "-n", args.max_tokens, "--seed", "1"]
        inputs = [*args.prompts, *(Path(p) for p in (args.model, args.drafter) if p and Path(p).is_file())]
        self.files = {str(path): file_mark(path) for path in inputs}
        self.files["dspark"] = digest(args.dspark)

    def run(self, name, command, report=True, made=()):
        """Runs one report into out/NAME.json and its pictures into out/NAME/. `made`: files of other parts that
        it reads. returns: the report."""
        target, done = self.out / f"{name}.json", self.out / (name + MARK)
        files = {**self.files, **{str(path): digest(path) for path in made}}
        mark = json.dumps({"command": [str(word) for word in command], "files": files})
        if done.exists() and done.read_text() == mark:
            print(f"{name}: kept", file=sys.stderr, flush=True)
            return json.loads(target.read_text()) if report else None
        done.unlink(missing_ok=True)
        print(f"{name}: {' '.join(str(word) for word in command)}", file=sys.stderr, flush=True)
        start = time.monotonic()
        more = ["--json", str(target), "--plot", str(self.out / name)] if report else []
        result = subprocess.run([self.args.dspark, *map(str, command), *more], stdout=subprocess.PIPE, text=True, check=False)
        print(result.stdout, file=sys.stderr, flush=True)
        if result.returncode != 0:
            sys.exit(f"load_sweep: {name} failed with status {result.returncode}; the next call goes on here")
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        done.write_text(mark)
        return json.loads(target.read_text()) if report else None

    def load(self, name, *more):
        return self.run(name, ["bench", "load", *self.common, "-v", *more, *self.args.prompts])

    def measured(self, name, policies, *more):
        """One row: all rounds of some policies."""
        return self.load(name, "-r", self.args.rounds, "--policies", policies, "--turn-seconds", self.args.turn_seconds,
                         "--seconds", 3 * self.args.row_seconds + 60, "--reference", *self.warmup(), *more)

    def warmup(self):
        return ["--warmup", "4"] if self.args.quick else []

    def look(self):
        """How fast it goes without drafts at every load, and how long answers are."""
        report = self.load("look", "-r", 1, "--policies", "off", "--concurrency", self.args.concurrency, "--requests", 12,
                           "--seconds", 1 if self.args.quick else 6, *self.warmup())
        self.speed = {cell["concurrency"]: cell["tokens_per_s"]["median"] for cell in report["cells"]}
        first = report["cells"][0]["rounds"][0]
        most = int(self.args.max_tokens.split("-")[-1])
        self.answer_tokens = min(most, first["tokens"] / first["answers"]) if first["answers"] else most

    def requests(self, load, policies):
        if self.args.quick:
            return QUICK_REQUESTS
        n_runs = len(policies.split(",")) * int(self.args.rounds)
        return count_requests(self.args.row_seconds, self.speed[load], load, n_runs, self.answer_tokens)

    def closed(self, part):
        """A report for every number of clients."""
        drafter = ["-d", "ngram"] if part == "lookup" else ["-d", self.args.drafter]
        policies = self.args.policies
        if part == "noise":  # its fixed lengths are known to lose: what is asked is whether adaptive notices
            policies = "off,adaptive"
            drafter.append("--random-drafter")
        return [self.measured(f"{part}-{load}", policies, "--concurrency", load, "--requests", self.requests(load, policies), *drafter)
                for load in self.loads]

    def open(self, part):
        """One report at half of what the machine gives to some clients."""
        clients = max((load for load in self.loads if load <= MODERATE_CLIENTS), default=self.loads[0])
        rate = float(f"{0.5 * self.speed[clients] / self.answer_tokens:.2g}")
        policies = self.args.open_policies
        seconds = self.args.row_seconds / (len(policies.split(",")) * int(self.args.rounds))
        n = QUICK_REQUESTS if self.args.quick else max(2 * LEAST_REQUESTS, round(rate * seconds))
        arrivals = "poisson" if part == "poisson" else "bursty:8"
        return [self.measured(part, policies, "--arrivals", arrivals, "--rates", rate, "--requests", n, "-d", self.args.drafter)]

    def burst(self):
        seconds = 0.5 if self.args.quick else self.args.phase_seconds
        return self.measured("burst", self.args.burst_policies, "--burst", "1,16,1", "--phase-seconds", seconds, "--remember",
                             "-d", self.args.drafter)

    def simulated(self, costs):
        """(title, report) of simulations; `costs`: the name of a load's report, or None."""
        trace = self.out / "rounds.jsonl"
        self.run("record", ["bench", "load", *self.common, "--requests", "8" if self.args.quick else "64", "-d", self.args.drafter,
                            "--record", trace, *self.args.prompts], report=False)
        wide = "1,16,256" if self.args.quick else "1,4,16,64,256,1024"
        curves = [("gpu", "on a GPU-like curve", ["--curve", "gpu"], [trace])]
        if costs is not None:
            report = self.out / f"{costs}.json"
            curves.insert(0, ("here", "with the costs measured here", ["--costs", report], [trace, report]))
        return [(title, self.run(f"simulated-{name}", ["bench", "schedule", "--trace", trace, *curve, "--concurrency", wide], made=made))
                for name, title, curve, made in curves]


def closed_text(part, reports, out):
    (out / f"{part}.svg").write_text(load_pictures.pareto_of_reports(f"{TITLES[part]}: throughput against speed", reports))
    return [f"## {TITLES[part]}", "", *load_tables.verdict_table(reports), "", *load_tables.speed_table(reports), "",
            *load_tables.draft_table(reports), "", load_tables.texts_line(reports), "", f"![throughput against speed]({part}.svg)", ""]


def open_text(part, reports):
    return [f"## {TITLES[part]}", "", *load_tables.verdict_table(reports), "", *load_tables.speed_table(reports), "",
            *load_tables.draft_table(reports), "", load_tables.texts_line(reports), ""]


def burst_text(report):
    pictures = [f"![{policy}](burst/burst-{policy.replace(':', '-')}.svg)" for policy in report["policies"]]
    return [f"## Burst: {', '.join(map(str, report['burst']))} clients", "", *load_tables.phase_verdict_table(report), "",
            *load_tables.phase_table(report), "", load_tables.texts_line([report]), "", *pictures, ""]


def machine(threads):
    try:
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {threads} threads"


def head_text(report, args):
    return [f"# Load, {time.strftime('%Y-%m-%d')}", "",
            f"{machine(args.threads)}; {Path(report['model']).name}, drafter {args.drafter}, {report['isa']} kernels; answers of "
            f"{args.max_tokens} tokens from {', '.join(report['sources'])}; {args.rounds} round(s), turns of {args.turn_seconds} s, about "
            f"{args.row_seconds:g} s a row.", "",
            "Ratios: seconds of one policy over seconds of the other for the same tokens, all rounds together, with one standard "
            "error; in parentheses single rounds (with open arrivals: medians of the speed of one user). Times are medians over "
            "rounds, counts are sums.", ""]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+", type=Path)
    parser.add_argument("-m", "--model")
    parser.add_argument("-d", "--drafter", default=str(DRAFTER))
    parser.add_argument("--dspark", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "load")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--row-seconds", type=float, default=240, help="of one load with all its policies and rounds")
    parser.add_argument("--turn-seconds", default="0.2")
    parser.add_argument("--phase-seconds", type=float, default=6)
    parser.add_argument("--max-tokens", default="32-96")
    parser.add_argument("--concurrency", default="1,2,4,8,16,32")
    parser.add_argument("--policies", default="off,fixed:1,fixed:2,fixed:3,fixed:5,fixed:7,adaptive", help="of closed loops")
    parser.add_argument("--open-policies", default="off,fixed:1,fixed:3,adaptive")
    parser.add_argument("--burst-policies", default="off,fixed:1,fixed:3,fixed:7,adaptive")
    parser.add_argument("--fresh", action="store_true", help="keep nothing that is there already")
    parser.add_argument("--quick", action="store_true", help="one short round, only to see that everything works")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"--parts: want some of {', '.join(PARTS)}, found '{part}'")
    for path in (args.dspark, *args.prompts):
        if not Path(path).is_file():
            parser.error(f"{path}: no such file")
    if args.quick:
        args.rounds, args.max_tokens, args.concurrency, args.row_seconds = "1", "8-16", "1,4", 3
        args.policies = args.open_policies = args.burst_policies = "off,fixed:3,adaptive"
    return args


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        for done in args.out.glob("*" + MARK):
            done.unlink()
    sweep = Sweep(args)
    if set(args.parts) - {"burst", "simulated"}:
        sweep.look()
    text, some_report, costs = [], None, None
    for part in PARTS:  # the costs of the first are those of the simulation
        if part not in args.parts or part == "simulated":
            continue
        if part == "burst":
            reports = [sweep.burst()]
            text += burst_text(reports[0])
        elif part in ("poisson", "bursty"):
            reports = sweep.open(part)
            text += open_text(part, reports)
        else:
            reports = sweep.closed(part)
            text += closed_text(part, reports, args.out)
        if some_report is None:
            some_report = reports[0]
            costs = f"{part}-{sweep.loads[0]}" if part in ("learned", "lookup", "noise") else part
    if "simulated" in args.parts:
        for title, report in sweep.simulated(costs):
            text += [f"## Simulated {title}", "", "Total tokens/s, tokens/s of one user.", "",
                     *load_tables.simulation_table(report), ""]
            some_report = some_report or {**report, "isa": "no", "sources": ["recorded rounds"]}
    (args.out / "load.md").write_text("\n".join([*head_text(some_report, args), *text]))
    print("\n".join(text))


if __name__ == "__main__":
    main()
