#!/usr/bin/env python3
"""What a step costs beyond the passes of target and drafter: accept rules, sampling, stops, bookkeeping.

    bench/loop_share.py [MODEL[=DRAFTER]...] [--repeats 5] [--threads 2] [--new-tokens 64] [--quick]

Without models: all real ones in models/cache, each with its drafter in drafters/, or prompt lookup where it has none.
Each is measured greedily and at temperature 0.8 with 1 and 8 sequences (`dspark bench load`: policies in turn, noise over
the whole row), and at temperature 0.8 with the default sampler of `dspark run` (top-k, top-p, min-p) with 1 sequence.
Prints a table: the share of a step that is neither drafts, pass nor commit, as the median over the repeats with the
smallest and the largest; asked are at most 3 %. "Outside" lies between steps (handing over texts, the clients), as a
share of the whole time. The machine should do nothing else meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = {  # in models/cache -> folder in drafters/
    "SmolLM2-135M-Instruct.Q4_1.gguf": "smollm2-135m-instruct",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": "qwen2.5-coder-0.5b-instruct",
    "gemma-3-270m-q4_k_m.gguf": "gemma-3-270m",
}
LOOKUP = "ngram"
POLICIES = ("off", "fixed:3", "adaptive")
SEQUENCES = (1, 8)
TEMPERATURE = 0.8
PROMPTS = (
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "The days of the week are Monday, Tuesday,",
    "Tom has 3 boxes with 12 apples each and gives 7 apples away. How many apples are left? Let us count:",
    "A hash table is a data structure that",
    "Once upon a time there was a small engine that",
    "1, 2, 3, 4, 5, 6, 7,",
    "The capital of France is Paris. The capital of Spain is",
    "import json\n\ndef read_lines(path):\n",
)


def fail(text):
    sys.exit(f"loop_share: error: {text}")


def real_models():
    """[(model, drafter)] of what lies in models/cache."""
    found = []
    for file, name in MODELS.items():
        model, drafter = ROOT / "models" / "cache" / file, ROOT / "drafters" / name / "dspark.gguf"
        if model.exists():
            found.append((str(model), str(drafter) if drafter.exists() else LOOKUP))
    return found


def named_model(text):
    model, _, drafter = text.partition("=")
    return model, drafter or LOOKUP


def share(draft, forward, commit, step):
    """The part of the steps' seconds that none of the passes accounts for."""
    return (step - draft - forward - commit) / step


def shares_of_load(report):
    """{(sequences, policy): [(share of a step, share outside steps)]} of a report of `dspark bench load`."""
    found = {}
    for cell in report["cells"]:
        for part in cell["rounds"]:
            step = part["draft_s"] + part["forward_s"] + part["commit_s"] + part["loop_s"]
            inside = share(part["draft_s"], part["forward_s"], part["commit_s"], step)
            found.setdefault((cell["concurrency"], cell["policy"]), []).append((inside, part["outside_s"] / part["seconds"]))
    return found


def share_of_run(result):
    """The same of one `dspark run --json`, which has no outside."""
    engine = result["engine"]
    return share(engine["draft_s"], engine["forward_s"], engine["commit_s"], engine["step_s"])


def call(command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(str(word) for word in command[:4])} ...: {done.stderr.strip()}")
    return done.stdout


def measure_load(options, model, drafter, temperature, prompts):
    output = call([options.dspark, "bench", "load", "-m", model, "-d", drafter, "-t", options.threads, "--raw", "--ignore-eos",
                   "--concurrency", ",".join(map(str, SEQUENCES)), "--policies", ",".join(POLICIES), "-r", options.repeats,
                   "-n", options.new_tokens, "--temp", temperature, "--requests", options.requests, "--json", "-", prompts])
    return shares_of_load(json.loads(output))


def measure_run(options, model, drafter):
    """{policy: [share]}; one process for each prompt, policies there and back."""
    found = {policy: [] for policy in POLICIES}
    for repeat in range(options.repeats):
        prompt = PROMPTS[repeat % len(PROMPTS)]
        for policy in POLICIES if repeat % 2 == 0 else POLICIES[::-1]:
            command = [options.dspark, "run", "--json", "-m", model, "-t", options.threads, "--raw", "--ignore-eos",
                       "-n", options.new_tokens, "--temp", TEMPERATURE, "--seed", 1, "-p", prompt]
            if policy != "off":
                command += ["-d", drafter, "--spec", policy]
            found[policy].append(share_of_run(json.loads(call(command))))
    return found


def spread(values):
    return f"{100 * statistics.median(values):.2f} % ({100 * min(values):.2f}-{100 * max(values):.2f})"


def rows_of(options, model, drafter, prompts):
    """Lines of the table, one for each way to sample, policy and number of sequences."""
    name = Path(model).name
    lines = []
    for title, temperature in (("greedy", 0), (f"temperature {TEMPERATURE}", TEMPERATURE)):
        measured = measure_load(options, model, drafter, temperature, prompts)
        for policy in POLICIES:
            for sequences in SEQUENCES:
                inside, outside = zip(*measured[sequences, policy])
                lines.append(f"| {name} | {title} | {policy} | {sequences} | {spread(inside)} | {100 * statistics.median(outside):.2f} % |")
    for policy, shares in measure_run(options, model, drafter).items():
        lines.append(f"| {name} | default sampler, {TEMPERATURE} | {policy} | 1 | {spread(shares)} | |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=named_model, metavar="MODEL[=DRAFTER]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=24, help="measured answers of a run with several clients")
    parser.add_argument("--dspark", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--quick", action="store_true", help="one short repeat, only to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.new_tokens, options.requests = 1, 8, 8
    models = options.models or real_models()
    if not models:
        fail("no model in models/cache; scripts/fetch-models brings them, or name one")
    if not Path(options.dspark).exists():
        fail(f"{options.dspark} does not exist; scripts/build release makes it")
    print("| model | sampling | policy | sequences | share of a step beyond the passes | outside |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        lines = (json.dumps({"task": "loop", "id": i, "prompt": text}) + "\n" for i, text in enumerate(PROMPTS))
        prompts.write_text("".join(lines), encoding="utf-8")
        for model, drafter in models:
            for line in rows_of(options, model, drafter, prompts):
                print(line, flush=True)


if __name__ == "__main__":
    main()
