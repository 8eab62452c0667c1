#!/usr/bin/env python3
"""Runs the tests of `dspark bench` on llama.cpp through the C interface of llama-cpp-python.

    peer_llama.py MODEL --threads N --rows 1,8 --pass-depths 128 --prefill 512 --depths 0,4096 --repeats 3

Prints one JSON object: {"rows": [the rows of `dspark bench --json`], "load_s", "peak_rss_mb", "version"}.
Same plan as src/cli/bench_runner.cc: every repeat visits every test once, three passes per size, 16 decoded
tokens per depth; a pass asks for the logits of all its rows, prefill for those of the last.
"""

import argparse
import ctypes
import json
import resource
import statistics
import time

import llama_cpp as L

PREFILL_ROWS = 512
PASSES_PER_REPEAT = 3
DECODE_STEPS = 16


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(_level, _text, _user):
    pass


class Sequence:
    """One context with one sequence."""

    def __init__(self, path, threads, positions):
        L.llama_log_set(silent, ctypes.c_void_p(0))
        L.llama_backend_init()
        load = getattr(L, "llama_model_load_from_file", None) or L.llama_load_model_from_file
        start = time.perf_counter()
        self.model = load(path.encode(), L.llama_model_default_params())
        self.load_s = time.perf_counter() - start
        if not self.model:
            raise SystemExit(f"peer_llama: error: llama.cpp cannot load {path}")
        params = L.llama_context_default_params()
        params.n_ctx = positions
        params.n_batch = params.n_ubatch = PREFILL_ROWS
        params.n_threads = params.n_threads_batch = threads
        new = getattr(L, "llama_init_from_model", None) or L.llama_new_context_with_model
        self.context = new(self.model, params)
        self.batch = L.llama_batch_init(PREFILL_ROWS, 0, 1)
        if hasattr(L, "llama_model_get_vocab"):
            self.vocab_size = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        else:
            self.vocab_size = L.llama_n_vocab(self.model)
        self.state = 1

    def forget_from(self, position):
        if hasattr(L, "llama_memory_seq_rm"):
            L.llama_memory_seq_rm(L.llama_get_memory(self.context), 0, position, -1)
        elif hasattr(L, "llama_kv_self_seq_rm"):
            L.llama_kv_self_seq_rm(self.context, 0, position, -1)
        else:
            L.llama_kv_cache_seq_rm(self.context, 0, position, -1)

    def next_token(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % self.vocab_size

    def run(self, position, rows, all_logits):
        """Seconds of one llama_decode of `rows` rows from `position` on."""
        self.batch.n_tokens = rows
        for i in range(rows):
            self.batch.token[i] = self.next_token()
            self.batch.pos[i] = position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = 1 if all_logits or i + 1 == rows else 0
        start = time.perf_counter()
        status = L.llama_decode(self.context, self.batch)
        L.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"peer_llama: error: llama_decode returned {status}")
        return seconds

    def prefill(self, tokens):
        self.forget_from(0)
        return sum(
            self.run(at, min(PREFILL_ROWS, tokens - at), False) for at in range(0, tokens, PREFILL_ROWS)
        )


def one_repeat(sequence, plan, steps, out):
    """Deep tests first, each cutting the cache back to its depth, so that it is filled once."""
    stops = sorted({*plan.depths, *plan.pass_depths}, reverse=True)
    sequence.prefill(max(stops, default=0))
    for depth in stops:
        if depth in plan.depths:
            sequence.forget_from(depth)
            for step in range(steps):
                out.setdefault(("decode", depth), []).append(sequence.run(depth + step, 1, True))
        if depth in plan.pass_depths:
            for _ in range(PASSES_PER_REPEAT):
                for rows in plan.rows:
                    sequence.forget_from(depth)
                    out.setdefault(("pass", rows, depth), []).append(sequence.run(depth, rows, True))
    if plan.prefill:
        out.setdefault(("prefill", plan.prefill), []).append(sequence.prefill(plan.prefill))


def as_rows(samples):
    """The rows of `dspark bench --json`."""
    rows = []
    for (test, size, *depth), seconds in samples.items():
        middle = statistics.median(seconds)
        if test == "pass":
            rows.append({"test": test, "rows": size, "ms": middle * 1e3, "depth": depth[0]})
        elif test == "prefill":
            rows.append({"test": test, "tokens": size, "tokens_per_s": size / middle})
        else:
            rows.append({"test": test, "depth": size, "tokens_per_s": 1 / middle})
    return rows


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--pass-depths", type=numbers, default=[128])
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--depths", type=numbers, default=[0, 128, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    plan = parser.parse_args()

    positions = max([plan.prefill, *(d + max(plan.rows, default=1) for d in plan.pass_depths),
                     *(d + DECODE_STEPS for d in plan.depths)])
    sequence = Sequence(plan.model, plan.threads, positions)
    one_repeat(sequence, plan, 2, {})  # warm-up
    samples = {}
    for _ in range(plan.repeats):
        one_repeat(sequence, plan, DECODE_STEPS, samples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": as_rows(samples), "load_s": sequence.load_s, "peak_rss_mb": peak,
                      "version": f"llama-cpp-python {L.__version__}"}))


if __name__ == "__main__":
    main()
