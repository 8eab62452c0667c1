#!/usr/bin/env python3
"""Drafters of several kinds, trained on the same data with the same budget: what does each of them bring?

    bench/train_variants.py -m MODEL --data CACHE -o OUT --minutes 20 --threads 2 PROMPTS.jsonl...
    bench/train_variants.py -m MODEL --data CACHE -o OUT --steps 500 --variants dspark,dspark-gated PROMPTS.jsonl...
    bench/train_variants.py ... --minutes 60 --parallel 2 --threads 1 --temps 0,1 --train-args "--anchors 28 --seed 1"
    bench/train_variants.py ... --quick      # two steps each, only to see that it works

Trains every variant (`dspark train`), writes it as Q8_0 (`dspark quantize`) and counts what the target accepts of its drafts
alone (`dspark eval --no-hybrid`, whole blocks) on prompts that should not be in the training data. --train-args and
--eval-args go to all variants alike. Where a call was cut off the same one goes on; Ctrl-C writes the states of the runs.
With --parallel every run has processors of its own; a budget of time is fair only while all have neighbours.
Prints two tables, which OUT/variants.md keeps with all numbers in OUT/variants.json. tau: tokens per round of verification,
the target's own included; held out: what training expects of it (`tau_prob`), at temperature 1 on samples never trained on.
"""

import argparse
import csv
import json
import math
import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {  # name -> options of `dspark train`
    "dspark": [],
    "dflash": ["--kind", "dflash", "--ce", "1", "--soft-ce", "0", "--l1", "0", "--confidence", "0"],  # the reference's loss
    "dflash-soft": ["--kind", "dflash"],  # the loss of the others, without the confidence that it lacks
    "dspark-2": ["--layers", "2"],
    "dspark-3": ["--layers", "3"],
    "dspark-gated": ["--head", "gated"],
    "dspark-rnn": ["--head", "rnn"],
}
DEFAULT = "dspark,dflash,dflash-soft,dspark-2,dspark-3"
POLL_S = 0.1
FLOATS = ("F32", "BF16", "F16")


def say(text):
    print(f"train_variants: {text}", file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"train_variants: error: {text}")


def tail(log):
    """The last lines of a log, on one line."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return " / ".join([line.strip() for line in lines if line.strip()][-3:]) or f"{log} is empty"


def cores():
    """The processors that this process may use, those of one core together."""
    found = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        found.setdefault(siblings.read_text(encoding="utf-8") if siblings.exists() else cpu, []).append(cpu)
    return list(found.values())


def equal_parts(of_cores, n, threads):
    """Processors for each of n runs side by side: of cores of their own while there are enough, and all alike."""
    whole = n * threads <= len(of_cores)
    cpus = [core[0] for core in of_cores] if whole else [cpu for core in of_cores for cpu in core]
    if n * threads > len(cpus):
        fail(f"--parallel {n} --threads {threads}: want {n * threads} processors, found {len(cpus)}")
    parts = [cpus[i * threads:(i + 1) * threads] for i in range(n)]
    in_use = {cpu for part in parts for cpu in part}
    busy = {cpu: len(in_use.intersection(core)) for core in of_cores for cpu in core}
    if len({tuple(sorted(busy[cpu] for cpu in part)) for part in parts}) > 1:
        fail(f"--parallel {n} --threads {threads}: some runs would share a core and others not, on {len(of_cores)} cores with "
             f"{len(cpus)} processors")
    return parts


def train_command(options, name):
    run = options.out / name / "run"
    budget = ["--minutes", f"{options.minutes:g}"] if options.minutes else ["--steps", options.steps]
    command = [options.dspark, "train", "-m", options.model, "--data", *options.data, "-o", run, *budget,
               "--threads", options.threads, *options.train_args, *VARIANTS[name]]
    return command + (["--resume"] if (run / "state.safetensors").exists() else [])


def start_training(options, name, cpus):
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
    command = [str(word) for word in train_command(options, name)]
    with open(folder / "train.log", "ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, preexec_fn=pin)


def train_all(options, names):
    """Runs of these variants, options.parallel at a time. Whatever ends it, no run is left behind: all write their states."""
    if not names:
        return
    free = equal_parts(cores(), options.parallel, options.threads) if options.parallel > 1 else [None]
    waiting, running = list(names), {}
    try:
        while waiting or running:
            while waiting and free:
                name, cpus = waiting.pop(0), free.pop(0)
                say(f"{name}: training, see {options.out / name / 'train.log'}")
                running[name] = (start_training(options, name, cpus), cpus)
            time.sleep(POLL_S)
            for name, (process, cpus) in list(running.items()):
                if process.poll() is None:
                    continue
                if process.returncode != 0:
                    fail(f"{name}: dspark train: {tail(options.out / name / 'train.log')}")
                done_mark(options, name).touch()
                del running[name]
                free.append(cpus)
                say(f"{name}: trained")
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGINT)
        for process, _ in running.values():
            process.wait()


def make_file(path, log, command):
    """`command` with the file that it writes behind it, which appears under its name when it is complete."""
    part = path.with_name("part-" + path.name)
    with open(log, "wb") as out:
        done = subprocess.run([str(word) for word in (*command, part)], stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        fail(f"{path.parent.name}: dspark {command[1]}: {tail(log)}")
    os.replace(part, path)


def done_mark(options, name):
    """There when the budget of a variant is used."""
    return options.out / name / "trained"


def drafter_of(options, name):
    return options.out / name / "dspark.gguf"


def report_of(options, name, temperature):
    return options.out / name / f"eval-t{temperature:g}.json"


def quantize(options, name):
    folder = options.out / name
    make_file(drafter_of(options, name), folder / "quantize.log",
              [options.dspark, "quantize", "--type", "q8_0", "--target", options.model, "--force", folder / "run" / "draft"])


def evaluate(options, name, temperature):
    say(f"{name}: evaluation at temperature {temperature:g}")
    make_file(report_of(options, name, temperature), options.out / name / f"eval-t{temperature:g}.log",
              [options.dspark, "eval", "-m", options.model, "-d", drafter_of(options, name), "--no-hybrid",
               "--temp", f"{temperature:g}", "-n", options.new_tokens, "--limit", options.limit, "--batch", options.batch,
               *options.eval_args, *options.prompts, "--json"])


def last_row(path):
    """The last line of a log of `dspark train` by its columns; empty without one."""
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[-1] if rows else {}


def n_parameters(path):
    """How many numbers training changes: those of the drafter's folder, which has neither embedding nor head. None: unknown."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items()
               if name != "__metadata__" and tensor["dtype"] in FLOATS)


def eval_numbers(report):
    """What counts of a report of `dspark eval --json`."""
    return {"tau": report["macro"]["tau"],
            "accept_rule": report["accept_rule"],
            "tasks": {task["task"]: task["all"]["tokens_per_step"] for task in report["tasks"]},
            "conditional_acceptance_by_position": report["macro"]["conditional_acceptance_by_position"],
            "accept_rate_by_position": report["macro"]["accept_rate_by_position"]}


def numbers_of(options, name):
    """Everything that is known of a variant."""
    run = options.out / name / "run"
    trained, held_out = last_row(run / "log.csv"), last_row(run / "eval.csv")
    reports = {f"{t:g}": json.loads(report_of(options, name, t).read_text(encoding="utf-8")) for t in options.temps}
    return {"variant": name, "options": VARIANTS[name],
            "parameters": n_parameters(run / "draft" / "model.safetensors"),
            "steps": int(trained["step"]) if trained else None,
            "anchors": int(trained["anchors"]) if trained else None,
            "seconds": float(trained["elapsed_s"]) if trained else None,
            "tau_prob": float(held_out["tau_prob"]) if held_out else None,
            "eval": {t: eval_numbers(report) for t, report in reports.items()}}


def cell(value, digits=2, scale=1.0):
    return "-" if value is None else f"{value * scale:.{digits}f}"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def markdown(numbers, temps):
    """Two tables: what came out, and how acceptance falls with the position."""
    tasks = list(numbers[0]["eval"][temps[0]]["tasks"])
    head = ["variant", "parameters, M", "steps", "anchors, k", "minutes", "tau held out",
            *(f"{task}, T={temps[0]}" for task in tasks), *(f"mean, T={t}" for t in temps)]
    rows = []
    for one in numbers:
        first = one["eval"][temps[0]]["tasks"]
        rows.append([one["variant"], cell(one["parameters"], 2, 1e-6), cell(one["steps"], 0), cell(one["anchors"], 1, 1e-3),
                     cell(one["seconds"], 1, 1 / 60), cell(one["tau_prob"], 3), *(cell(first[task]) for task in tasks),
                     *(cell(one["eval"][t]["tau"]) for t in temps)])
    lines = table(head, rows)
    for t in temps:
        accepted = [one["eval"][t]["conditional_acceptance_by_position"] for one in numbers]
        n = max(len(rates) for rates in accepted)
        rows = [[one["variant"], *(cell(rate) for rate in rates), *[""] * (n - len(rates))]
                for one, rates in zip(numbers, accepted)]
        lines += ["", f"Accepted at a position when all drafts before it were, mean over tasks, T={t}:", "",
                  *table(["variant", *(str(i + 1) for i in range(n))], rows)]
    return "\n".join(lines)


def words_of(option, text):
    try:
        return shlex.split(text)
    except ValueError as error:
        return fail(f"{option}: {error} in '{text}'")


def names_of(text):
    names = text.split(",")
    for name in names:
        if name not in VARIANTS:
            fail(f"--variants: want some of {', '.join(VARIANTS)}; found '{name}'")
    if len(set(names)) < len(names):
        fail(f"--variants: a name twice in {text}")
    return names


def temps_of(text):
    try:
        temps = [float(word) for word in text.split(",")]
    except ValueError:
        temps = []
    if not temps or not all(0 <= t < math.inf for t in temps) or len(set(temps)) < len(temps):
        fail(f"--temps: want different temperatures from 0 on with commas between them, found '{text}'")
    return temps


def settings_of(options):
    """What all calls for one folder must have in common: else its variants could not be compared."""
    def places(paths):
        return [str(Path(path).resolve()) for path in paths]

    settings = {"model": str(Path(options.model).resolve()), "data": places(options.data), "minutes": options.minutes,
                "steps": options.steps, "train-args": options.train_args, "prompts": places(options.prompts),
                "limit": options.limit, "new-tokens": options.new_tokens, "eval-args": options.eval_args}
    if options.minutes:  # else speed changes nothing
        settings.update({"threads": options.threads, "parallel": options.parallel})
    return settings


def keep_settings(options):
    path, settings = options.out / "settings.json", settings_of(options)
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8"))
        for key in {**begun, **settings}:
            if begun.get(key) != settings.get(key):
                fail(f"{path}: {key}: this folder was begun with {json.dumps(begun.get(key))}, found "
                     f"{json.dumps(settings.get(key))}; repeat the options or name another folder")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+", type=Path, help="prompt files for the evaluation, each a task")
    parser.add_argument("-m", "--model", type=Path, required=True, help="target, a GGUF file or a folder")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="target caches or corpora, as for dspark train")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--variants", default=DEFAULT, help=f"some of {','.join(VARIANTS)} (default: {DEFAULT})")
    parser.add_argument("--minutes", type=float, help="training time of each variant")
    parser.add_argument("--steps", type=int, help="training steps of each variant")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument("--train-args", default="", help="more options for dspark train, in quotes")
    parser.add_argument("--temps", default="0", help="temperatures of the evaluation, with commas between them")
    parser.add_argument("--limit", type=int, default=24, help="prompts of each file, 0: all")
    parser.add_argument("-n", "--new-tokens", type=int, default=160, help="most tokens of an answer")
    parser.add_argument("--batch", type=int, default=16, help="answers at a time")
    parser.add_argument("--eval-args", default="", help="more options for dspark eval, in quotes; --eval-args=--raw: one alone")
    parser.add_argument("--dspark", type=Path, default=ROOT / "build" / "release" / "dspark")
    parser.add_argument("--quick", action="store_true", help="two steps and one short answer of each task")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.steps, options.limit, options.new_tokens = None, 2, 1, 8
    check_options(options)
    options.train_args = words_of("--train-args", options.train_args)
    options.eval_args = words_of("--eval-args", options.eval_args)
    options.variants, options.temps = names_of(options.variants), temps_of(options.temps)
    return options


def check_options(options):
    if (options.minutes is None) == (options.steps is None):
        fail("want either --minutes or --steps")
    if not 0 < (options.minutes or options.steps or 0) < math.inf:
        fail("--minutes, --steps: want more than 0")
    if options.threads < 1 or options.parallel < 1:
        fail("--threads, --parallel: want at least 1")
    for path in (options.dspark, options.model, *options.data, *options.prompts):
        if not path.exists():
            fail(f"{path} does not exist" + ("; scripts/build release makes it" if path == options.dspark else ""))


def make_all(options):
    """Trains, writes and evaluates what is not there yet."""
    to_write = [name for name in options.variants if not drafter_of(options, name).exists()]
    to_train = [name for name in to_write if not done_mark(options, name).exists()]
    n_last = len(to_train) % options.parallel
    if options.minutes and n_last:
        say(f"note: the last {n_last} of {len(to_train)} runs have fewer neighbours than the others, which helps them")
    train_all(options, to_train)
    for name in to_write:
        quantize(options, name)
    for name in options.variants:
        for temperature in options.temps:
            if not report_of(options, name, temperature).exists():
                evaluate(options, name, temperature)


def interrupt(_signal, _frame):
    raise KeyboardInterrupt


def main():
    options = read_options()
    keep_settings(options)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        make_all(options)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        sys.exit(130)
    numbers = [numbers_of(options, name) for name in options.variants]
    text = markdown(numbers, [f"{t:g}" for t in options.temps])
    report = json.dumps({"settings": settings_of(options), "variants": numbers}, indent=1)
    (options.out / "variants.json").write_text(report + "\n", encoding="utf-8")
    (options.out / "variants.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
