#!/usr/bin/env python3
"""Compares `dspark bench` with llama.cpp on the same GGUF files, interleaved in one run.

    bench/compare_peers.py --install          # once: builds llama-cpp-python from source into bench/.venv
    bench/compare_peers.py                    # all models in models/cache, 1 and 2 threads, 3 rounds
    bench/compare_peers.py --peer ik_llama.cpp=PROGRAM      # one more peer, see docs/benchmarks.md
    bench/compare_peers.py --quick            # does everything work? small numbers, not for reporting

Every round runs ours, the peers, the peers, ours (A B B A) as separate processes, with the machine's roofs
measured in between. The figure of a test is the median over the runs of each run's median; spread is the
smallest and the largest run. What was asked for is judged per model and thread count (bench/peer_report.py).
Writes bench/out/compare.json and bench/out/compare.md.

Run it on an idle machine: a neighbour's load changes all numbers, and not all by the same factor.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

from gguf_sizes import pass_work
from peer_report import markdown, model_report, test_key, test_value

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PEER_FOLDER = BENCH / ".venv"
DEFAULT_MODELS = ("SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf",
                  "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
ANSWER_PROMPT = " the" * 400  # fills a part of the cache that is large enough to be told from the rest
ANSWER_CONTEXT = 4096


def say(text):
    print(f"compare_peers: {text}", file=sys.stderr, flush=True)


def fail(text):
    say(f"error: {text}")
    sys.exit(1)


def install_peer():
    """Builds the newest llama-cpp-python for this very machine. Takes several minutes."""
    environment = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"}
    command = [sys.executable, "-m", "pip", "install", "--upgrade", "--target", str(PEER_FOLDER),
               "--no-binary", "llama-cpp-python", "llama-cpp-python"]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def run(command, **options):
    """Standard output of a command that must succeed, and its peak resident set in MB."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, **options)
    # stderr is short (errors only), so reading stdout first cannot block.
    with process.stdout, process.stderr:
        output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        fail(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} ... failed: {errors.strip()[-400:]}")
    return output, usage.ru_maxrss / 1024


def comma(values):
    return ",".join(map(str, values))


def plan_flags(plan, threads):
    """Flags that `dspark bench` and the peers share."""
    return ["--rows", comma(plan["rows"]), "--pass-depths", comma(plan["pass_depths"]), "--prefill", str(plan["prefill"]),
            "--depths", comma(plan["depths"]), "--repeats", str(plan["repeats"]), "--threads", str(threads)]


class Ours:
    name = "dspark"

    def __init__(self, binary):
        self.binary = binary

    def bench(self, model, threads, plan):
        output, peak = run([self.binary, "bench", "-m", model, *plan_flags(plan, threads), "--json"])
        return {"rows": json.loads(output), "peak_rss_mb": peak}

    def answer(self, model, threads):
        """Load time of a short answer, its peak memory, and the tokens that were in the cache at its end."""
        output, peak = run([self.binary, "run", "-m", model, "-t", str(threads), "-p", ANSWER_PROMPT, "-n", "16",
                            "-c", str(ANSWER_CONTEXT), "--temp", "0", "--raw", "--json"])
        timings = json.loads(output)["timings"]
        return {"load_s": timings["load_s"], "peak_rss_mb": peak,
                "tokens": timings["prompt_tokens"] + timings["generated_tokens"]}


class Peer:
    """A program with the arguments and the output of peer_llama.py; `extra` follows the arguments of the plan."""

    def __init__(self, name, command, extra=()):
        self.name, self.command, self.extra = name, command, list(extra)

    def bench(self, model, threads, plan):
        environment = {**os.environ, "PYTHONPATH": str(PEER_FOLDER)}
        output, peak = run([*self.command, model, *plan_flags(plan, threads), *self.extra], env=environment)
        # As the system counts it, for all engines alike.
        return {**json.loads(output), "peak_rss_mb": peak}


def build_roofs():
    binary = BENCH / "out" / "roofs"
    source = BENCH / "roofs.cc"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        # -w: GCC 12 warns about its own AVX-512 headers.
        run(["g++", "-std=c++20", "-O3", "-march=native", "-w", "-pthread", str(source), "-o", str(binary)])
    return binary


def measure_roofs(binary, threads, seconds):
    output, _ = run([str(binary), str(threads), str(seconds)])
    return json.loads(output)


def collect(models, threads_list, plan, engines, roofs_binary):
    """{(model, threads): {"samples": {engine: {test key: [values]}}, "roofs": [...], "extra": {engine: facts}}}

    Facts: lists peak_rss_mb and load_s with one figure per run, ours also answers; version where it is told."""
    results = {}
    order = engines + engines[::-1]
    for round_number in range(plan["rounds"]):
        for model in models:
            for threads in threads_list:
                entry = results.setdefault((model, threads), {"samples": {}, "roofs": [], "extra": {}})
                for engine in order:
                    say(f"round {round_number + 1} of {plan['rounds']}: {Path(model).name}, {threads} thread(s), "
                        f"{engine.name}")
                    entry["roofs"].append(measure_roofs(roofs_binary, threads, plan["roof_s"]))
                    add_run(entry, engine.name, engine.bench(model, threads, plan))
                check_tests(entry["samples"], engines[0].name)
                answer = engines[0].answer(model, threads)
                facts = entry["extra"]["dspark"]
                facts.setdefault("load_s", []).append(answer.pop("load_s"))
                facts.setdefault("answers", []).append(answer)
    return results


def check_tests(samples, ours):
    """Fails when a peer left out tests of ours: a driver of an older version passes over flags it does not know."""
    for name, tests in samples.items():
        missing = [key for key in samples[ours] if key not in tests]
        if missing:
            fail(f"{name} did not run: {', '.join(missing)}; is its driver an older one? build it again")


def add_run(entry, name, answer):
    samples = entry["samples"].setdefault(name, {})
    for row in answer["rows"]:
        samples.setdefault(test_key(row), []).append(test_value(row))
    facts = entry["extra"].setdefault(name, {})
    for key in ("peak_rss_mb", "load_s"):
        if key in answer:
            facts.setdefault(key, []).append(answer[key])
    if "version" in answer:
        facts["version"] = answer["version"]


def peer_versions(results, peers, told):
    """{name: text}: what the peer itself says, else what was told on the command line."""
    versions = {name: told.get(name, "version unknown") for name in peers}
    for entry in results.values():
        for name, facts in entry["extra"].items():
            if "version" in facts:
                versions[name] = facts["version"]
    return versions


def describe_machine(versions):
    cpu = platform.processor() or "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=False).stdout.strip()
    return {"cpu": f"{cpu}, {os.cpu_count()} CPUs", "commit": commit or "unknown", "versions": versions,
            "date": time.strftime("%Y-%m-%d %H:%M")}


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="build the peer, then stop")
    parser.add_argument("--models", nargs="+", help="GGUF files (default: those in models/cache)")
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="repeats inside one process")
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--pass-depths", type=numbers, default=[128, 4096],
                        help="tokens in the cache before the passes; attention is the difference of first and last")
    parser.add_argument("--depths", type=numbers, default=[0, 4096])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--no-peer", action="store_true", help="ours only")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM",
                        help="another peer, e.g. ik_llama.cpp=/path/of/peer_driver; words behind the program are "
                        "arguments for it, e.g. 'ik=peer_driver --flash-attn 0'")
    parser.add_argument("--peer-version", action="append", default=[], metavar="NAME=TEXT",
                        help="version of a peer that does not tell its own")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default=str(BENCH / "out" / "compare"), help="without suffix")
    return parser.parse_args()


def read_engines(options):
    engines = [Ours(options.binary)]
    if not options.no_peer:
        if not (PEER_FOLDER / "llama_cpp").is_dir():
            fail("llama.cpp is not built; run bench/compare_peers.py --install, or use --no-peer")
        engines.append(Peer("llama.cpp", [sys.executable, str(BENCH / "peer_llama.py")]))
    for text in options.peer:
        name, _, command = text.partition("=")
        program, *extra = shlex.split(command) or [""]
        if not name or not Path(program).is_file():
            fail(f"--peer: expected NAME=PROGRAM, found {text}")
        if name in (engine.name for engine in engines):
            fail(f"--peer: {name} is there twice")
        engines.append(Peer(name, [program], extra))
    return engines


def read_versions(options, peers):
    told = {}
    for text in options.peer_version:
        name, equals, version = text.partition("=")
        if not equals or name not in peers:
            fail(f"--peer-version: expected NAME=TEXT with one of {', '.join(peers) or 'no peers'}, found {text}")
        told[name] = version
    return told


def main():
    options = read_options()
    if options.install:
        return install_peer()
    plan = {"rounds": options.rounds, "repeats": options.repeats, "rows": options.rows, "depths": options.depths,
            "pass_depths": options.pass_depths, "prefill": options.prefill, "roof_s": 1.0}
    if options.quick:
        plan |= {"rounds": 1, "repeats": 1, "rows": [1, 8], "depths": [0], "pass_depths": [16, 64], "prefill": 64,
                 "roof_s": 0.2}
    models = options.models or [str(ROOT / "models" / "cache" / name) for name in DEFAULT_MODELS]
    for path in [*models, options.binary]:
        if not Path(path).is_file():
            fail(f"{path} is missing; scripts/fetch-models smollm2 gemma3 qwen2.5-coder and scripts/build make it")
    engines = read_engines(options)
    names = [engine.name for engine in engines]
    told = read_versions(options, names[1:])
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    (BENCH / "out").mkdir(exist_ok=True)
    results = collect(models, options.threads, plan, engines, build_roofs())
    machine = describe_machine(peer_versions(results, names[1:], told))
    rows = [model_report(Path(model).name, threads, entry, pass_work(model))
            for (model, threads), entry in results.items()]
    text = markdown(machine, rows, names)
    Path(options.out + ".json").write_text(json.dumps({"machine": machine, "plan": plan, "results": rows}, indent=1))
    Path(options.out + ".md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
