#!/usr/bin/env python3
"""Compares `dspark bench` with llama.cpp on the same GGUF files, interleaved in one run.

    bench/compare_peers.py --install          # once: builds llama-cpp-python from source into bench/.venv
    bench/compare_peers.py                    # all models in models/cache, 1 and 2 threads, 3 rounds
    bench/compare_peers.py --peer ik_llama.cpp=PROGRAM      # one more peer, see docs/benchmarks.md
    bench/compare_peers.py --quick            # does everything work? small numbers, not for reporting

Every round runs ours, the peers, the peers, ours (A B B A) as separate processes, with the machine's roofs
measured in between. The figure of a test is the median over the runs of each run's median; spread is the
smallest and the largest run. Writes bench/out/compare.json and bench/out/compare.md.

Run it on an idle machine: a neighbour's load changes all numbers, and not all by the same factor.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from gguf_sizes import cache_bytes, pass_work

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PEER_FOLDER = BENCH / ".venv"
DEFAULT_MODELS = ("SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf",
                  "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
PREFILL_ROWS = 512
PASS_DEPTH = 128


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
    output = process.stdout.read()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        fail(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} ... failed: {errors.strip()[-400:]}")
    return output, usage.ru_maxrss / 1024


def comma(values):
    return ",".join(map(str, values))


class Ours:
    name = "dspark"

    def __init__(self, binary):
        self.binary = binary

    def bench(self, model, threads, plan):
        output, _ = run([self.binary, "bench", "-m", model, "-t", str(threads), "--rows", comma(plan["rows"]),
                         "--prefill", str(plan["prefill"]), "--depths", comma(plan["depths"]),
                         "--repeats", str(plan["repeats"]), "--json"])
        return {"rows": json.loads(output)}

    def load(self, model, threads):
        """Load time and peak memory of a short answer."""
        output, peak = run([self.binary, "run", "-m", model, "-t", str(threads), "-p", "The capital of France is",
                            "-n", "16", "-c", "512", "--temp", "0", "--raw", "--json"])
        return {"load_s": json.loads(output)["timings"]["load_s"], "peak_rss_mb": peak}


class Peer:
    """A program with the arguments and the output of peer_llama.py."""

    def __init__(self, name, command):
        self.name, self.command = name, command

    def bench(self, model, threads, plan):
        environment = {**os.environ, "PYTHONPATH": str(PEER_FOLDER)}
        output, _ = run([*self.command, model, "--threads", str(threads), "--rows", comma(plan["rows"]),
                         "--prefill", str(plan["prefill"]), "--depths", comma(plan["depths"]),
                         "--repeats", str(plan["repeats"])], env=environment)
        return json.loads(output)


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
    """{(model, threads): {"samples": {engine: {test key: [values]}}, "roofs": [...], "extra": {...}}}"""
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
                    answer = engine.bench(model, threads, plan)
                    samples = entry["samples"].setdefault(engine.name, {})
                    for row in answer.pop("rows"):
                        samples.setdefault(test_key(row), []).append(test_value(row))
                    entry["extra"].setdefault(engine.name, {}).update(answer)
                entry["extra"].setdefault("dspark", {}).update(engines[0].load(model, threads))
    return results


def test_key(row):
    size = row.get("rows") or row.get("tokens") or row.get("depth", 0)
    return f"{row['test']} {size}"


def test_value(row):
    return row["ms"] if row["test"] == "pass" else row["tokens_per_s"]


def roof_of(key, work, roofs):
    """The best this machine could do: max(bytes / bandwidth, operations / int8 peak).

    Bytes are those of the weights and, for decoding, of the 2-byte cache."""
    test, size = key.split()
    bandwidth = statistics.median(r["read_gb_per_s"] for r in roofs) * 1e9
    peak = statistics.median(r["int8_gop_per_s"] for r in roofs) * 1e9
    rows = int(size) if test in ("pass", "prefill") else 1
    if test == "prefill":
        # The head works for the last row only.
        passes = -(-rows // PREFILL_ROWS)
        operations = 2 * (work["params"] - work["head_params"]) * rows + 2 * work["head_params"] * passes
        return rows / max(work["bytes"] * passes / bandwidth, operations / peak)
    depth = int(size) if test == "decode" else PASS_DEPTH
    bytes_read = work["bytes"] + cache_bytes(work["metadata"], depth)
    seconds = max(bytes_read / bandwidth, 2 * work["params"] * rows / peak)
    return seconds * 1e3 if test == "pass" else 1 / seconds


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def ratio_of(key, ours, peer):
    """How many times faster ours is."""
    return peer / ours if key.startswith("pass") else ours / peer


def report(results, engines):
    """Results as plain data for JSON."""
    out = []
    for (model, threads), entry in results.items():
        work = pass_work(model)
        tests = []
        for key in entry["samples"][engines[0].name]:
            figures = {name: summary(samples[key]) for name, samples in entry["samples"].items()}
            test = {"test": key, "unit": "ms" if key.startswith("pass") else "tok/s", "engines": figures,
                    "roof": roof_of(key, work, entry["roofs"])}
            if len(engines) > 1:
                # Against the better peer of this test.
                test["times_faster"] = min(ratio_of(key, figures["dspark"]["median"], figures[peer.name]["median"])
                                           for peer in engines[1:])
            tests.append(test)
        roofs = {name: summary([r[name] for r in entry["roofs"]]) for name in ("read_gb_per_s", "int8_gop_per_s")}
        sizes = {name: value for name, value in work.items() if name != "metadata"}
        out.append({"model": Path(model).name, "threads": threads, "weights": sizes, "roofs": roofs, "tests": tests,
                    "extra": entry["extra"]})
    return out


def cell(figure):
    return f"{figure['median']:.4g} ({figure['min']:.4g}–{figure['max']:.4g})"


def markdown(machine, report_rows, engines):
    facts = [machine["cpu"], machine["date"], "commit " + machine["commit"]]
    lines = [", ".join(facts + [f"{key} {value}" for key, value in machine["versions"].items()]) + ".", ""]
    for row in report_rows:
        read, int8 = row["roofs"]["read_gb_per_s"], row["roofs"]["int8_gop_per_s"]
        lines += [f"**{row['model']}, {row['threads']} thread(s)**; read {cell(read)} GB/s, int8 {cell(int8)} Gop/s",
                  "", "| test | " + " | ".join(e.name for e in engines) + " | faster than the best peer | roof |",
                  "|---|" + "---|" * (len(engines) + 2)]
        for test in row["tests"]:
            label, size = test["test"].split()
            what = {"pass": f"pass of {size} rows, ms", "prefill": f"prefill {size}, tok/s",
                    "decode": f"decode at {size}, tok/s"}[label]
            figures = " | ".join(cell(test["engines"][engine.name]) for engine in engines)
            faster = f"{test['times_faster']:.2f}" if "times_faster" in test else "-"
            lines.append(f"| {what} | {figures} | {faster} | {test['roof']:.4g} |")
        for name, extra in row["extra"].items():
            if "load_s" in extra:
                lines.append(f"\n{name}: loads in {extra['load_s']:.2f} s, peak memory {extra['peak_rss_mb']:.0f} MB "
                             f"(file {row['weights']['file_bytes'] / 2**20:.0f} MB)")
        lines.append("")
    return "\n".join(lines)


def describe_machine(results):
    cpu = platform.processor() or "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=False).stdout.strip()
    versions = {}
    for entry in results.values():
        for name, extra in entry["extra"].items():
            if "version" in extra:
                versions[f"{name} (llama-cpp-python)"] = extra["version"]
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
    parser.add_argument("--depths", type=numbers, default=[0, 4096])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "dspark"))
    parser.add_argument("--no-peer", action="store_true", help="ours only")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM",
                        help="another peer, e.g. ik_llama.cpp=/path/of/peer_driver")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default=str(BENCH / "out" / "compare"), help="without suffix")
    return parser.parse_args()


def main():
    options = read_options()
    if options.install:
        return install_peer()
    plan = {"rounds": options.rounds, "repeats": options.repeats, "rows": options.rows, "depths": options.depths,
            "prefill": options.prefill, "roof_s": 1.0}
    if options.quick:
        plan |= {"rounds": 1, "repeats": 1, "rows": [1, 8], "depths": [0], "prefill": 64, "roof_s": 0.2}
    models = options.models or [str(ROOT / "models" / "cache" / name) for name in DEFAULT_MODELS]
    for path in [*models, options.binary]:
        if not Path(path).is_file():
            fail(f"{path} is missing; scripts/fetch-models smollm2 gemma3 qwen2.5-coder and scripts/build make it")
    engines = [Ours(options.binary)]
    if not options.no_peer:
        if not (PEER_FOLDER / "llama_cpp").is_dir():
            fail("llama.cpp is not built; run bench/compare_peers.py --install, or use --no-peer")
        engines.append(Peer("llama.cpp", [sys.executable, str(BENCH / "peer_llama.py")]))
    for text in options.peer:
        name, _, program = text.partition("=")
        if not Path(program).is_file():
            fail(f"--peer: expected NAME=PROGRAM, found {text}")
        engines.append(Peer(name, [program]))
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    (BENCH / "out").mkdir(exist_ok=True)
    results = collect(models, options.threads, plan, engines, build_roofs())
    machine = describe_machine(results)
    rows = report(results, engines)
    text = markdown(machine, rows, engines)
    Path(options.out + ".json").write_text(json.dumps({"machine": machine, "plan": plan, "results": rows}, indent=1))
    Path(options.out + ".md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
