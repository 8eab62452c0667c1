#!/usr/bin/env python3
"""bench/loop_share.py, draft_roof.py, compare_peers.py and spec_speed.py: what they make of measurements, and that they run."""

import argparse
import json
import subprocess
import sys
import unittest

from harness import BINARY, ROOT, SLOWDOWN, Tool
from tiny_drafter import write_tiny_drafter

sys.path.insert(0, str(ROOT / "bench"))
import compare_peers  # noqa: E402
import draft_roof  # noqa: E402
import gguf_sizes  # noqa: E402
import loop_share  # noqa: E402
import peer_report  # noqa: E402
import spec_speed  # noqa: E402

SCRIPT = ROOT / "bench" / "loop_share.py"


class LoopShare(Tool):
    def test_shares(self):
        run = {"engine": {"draft_s": 1.0, "forward_s": 6.0, "commit_s": 1.0, "step_s": 10.0}}
        self.assertAlmostEqual(loop_share.share_of_run(run), 0.2)
        part = {"draft_s": 1.0, "forward_s": 2.0, "commit_s": 0.5, "loop_s": 0.5, "outside_s": 1.0, "seconds": 5.0}
        more = {**part, "loop_s": 1.5}
        report = {"cells": [{"concurrency": 8, "policy": "off", "rounds": [part, more]}]}
        ((inside, outside), (other, _)), = loop_share.shares_of_load(report).values()
        self.assertAlmostEqual(inside, 0.125)
        self.assertAlmostEqual(outside, 0.2)
        self.assertAlmostEqual(other, 0.3)
        self.assertEqual(loop_share.spread([0.01, 0.03, 0.02]), "2.00 % (1.00-3.00)")

    def test_models(self):
        self.assertEqual(loop_share.named_model("a.gguf"), ("a.gguf", "ngram"))
        self.assertEqual(loop_share.named_model("a.gguf=d/x.gguf"), ("a.gguf", "d/x.gguf"))

    def test_every_row_is_measured(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        done = subprocess.run([sys.executable, "-B", str(SCRIPT), f"{self.chat_model}={drafter}", "--quick", "--threads", "1",
                               "--dspark", BINARY], capture_output=True, text=True, timeout=240 * SLOWDOWN, check=False,
                              env={"XDG_CACHE_HOME": str(self.path / "cache"), "PATH": "/usr/bin:/bin"})
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
        got = {(row[1], row[2], int(row[3])) for row in rows}
        want = {(sampling, policy, n) for sampling in ("greedy", "temperature 0.8") for policy in loop_share.POLICIES
                for n in loop_share.SEQUENCES}
        want |= {("default sampler, 0.8", policy, 1) for policy in loop_share.POLICIES}
        self.assertEqual(got, want)
        self.assertEqual(len(rows), len(want))
        for row in rows:
            percent = float(row[4].split()[0])
            self.assertTrue(0 <= percent < 100, row)

    def test_failures_are_told(self):
        done = subprocess.run([sys.executable, "-B", str(SCRIPT), "nowhere.gguf", "--quick", "--dspark", BINARY],
                              capture_output=True, text=True, timeout=60 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("loop_share: error:", done.stderr)
        self.assertIn("nowhere.gguf", done.stderr)


class Programs(Tool):
    def program(self, name, *lines):
        """A program that prints these objects whatever it is asked."""
        path = self.path / name
        path.write_text("#!/bin/sh\n" + "".join(f"echo '{json.dumps(line)}'\n" for line in lines))
        path.chmod(0o755)
        return path


class DraftRoof(Programs):
    def test_both_roofs(self):
        # 10 MB take 0.1 ms from the cache and 1 ms from memory; products take 0.2 ms, or 4 for eight.
        one = {"sequences": 1, "pass_ms": 8.0, "draft_ms": 0.6, "warm_draft_ms": 0.4, "bytes": 1e7, "ops": 2e8}
        many = {"sequences": 8, "pass_ms": 16.0, "draft_ms": 8.0, "warm_draft_ms": 6.0, "bytes": 1e7, "ops": 4e9}
        roofs = self.program("roofs", {"read_gb_per_s": 10, "cached_read_gb_per_s": 100, "int8_gop_per_s": 1000})
        share = self.program("draft_share", one, many)
        found = draft_roof.measure(share, roofs, "model.gguf", argparse.Namespace(threads=2, rounds=3, layers=1, draft_vocab=8192, rank=64))
        self.assertEqual([len(found[n]) for n in (1, 8)], [3, 3])
        self.assertEqual(found[1][0]["cache"], (0.2, "int8"))
        self.assertEqual(found[1][0]["memory"], (1.0, "memory"))
        self.assertEqual(found[8][0]["cache"], (4.0, "int8"))
        self.assertEqual(found[8][0]["memory"], (4.0, "int8"))
        slower = draft_roof.roof_ms(one, 20, 1000, "cache")
        self.assertEqual(slower, (0.5, "cache"))
        self.assertEqual(draft_roof.table_line("folder/model.gguf", 1, found[1]),
                         "| model.gguf | 1 | 0.600 | 0.400 | 0.200 (int8) | 3.00 (3.00-3.00) | 2.00 (2.00-2.00) "
                         "| 1.000 (memory) | 0.60 (0.60-0.60) | 7.5 % |")

    def test_failures_are_told(self):
        done = subprocess.run([sys.executable, "-B", str(ROOT / "bench" / "draft_roof.py"), "m.gguf", "--binary", "nowhere"],
                              capture_output=True, text=True, timeout=60 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nowhere does not exist", done.stderr)


# 2 layers, 4 heads over 2 of K and V, 8 elements each: 128 bytes and 256 operations a position, all layers together.
SHAPE = {"general.architecture": "llama", "llama.block_count": 2, "llama.attention.head_count": 4,
         "llama.attention.head_count_kv": 2, "llama.embedding_length": 32}
# A pass reads 10 MB; 5 million parameters are 10 million operations a row.
WORK = {"bytes": 10e6, "params": 5e6, "head_bytes": 2e6, "head_params": 1e6, "file_bytes": 16 << 20, "metadata": SHAPE}
ROOFS = {"read_gb_per_s": 10.0, "int8_gop_per_s": 40.0, "float_gop_per_s": 1.0, "float_kind": "bf16"}


class ComparePeers(Programs):
    def entry(self, **changes):
        """Made-up samples of three runs (their medians are the second), and of two peers of which `fast` is the better."""
        medians = {"dspark": {"pass 1 0": 1.0, "pass 4 0": 1.3, "pass 8 0": 2.5, "pass 1 1000": 1.5, "pass 4 1000": 1.9,
                              "pass 8 1000": 3.1, "prefill 512": 3000.0, "decode 0": 900.0, "decode 1000": 500.0},
                   "slow": {"pass 1 0": 4.0, "pass 4 0": 8.0, "pass 8 0": 20.0, "pass 1 1000": 8.0, "pass 4 1000": 16.0,
                            "pass 8 1000": 40.0, "prefill 512": 500.0, "decode 0": 300.0, "decode 1000": 100.0},
                   "fast": {"pass 1 0": 2.0, "pass 4 0": 4.0, "pass 8 0": 10.0, "pass 1 1000": 4.0, "pass 4 1000": 8.0,
                            "pass 8 1000": 16.0, "prefill 512": 1000.0, "decode 0": 450.0, "decode 1000": 400.0}}
        medians["dspark"].update(changes)
        samples = {name: {key: [value * 0.5, value, value * 3] for key, value in values.items()}
                   for name, values in medians.items()}
        answers = [{"peak_rss_mb": peak, "tokens": 4090} for peak in (66.5, 86.5, 96.5)]
        extra = {"dspark": {"peak_rss_mb": [90.0, 80.0, 70.0], "load_s": [0.3, 0.2, 0.1], "answers": answers},
                 "slow": {"peak_rss_mb": [200.0], "load_s": [1.0], "version": "1.2"}, "fast": {"peak_rss_mb": [150.0]}}
        return {"samples": samples, "roofs": [ROOFS], "extra": extra}

    def report(self, **changes):
        return peer_report.model_report("m.gguf", 2, self.entry(**changes), WORK)

    def test_roofs(self):
        tests = {test["test"]: test for test in self.report()["tests"]}
        self.assertAlmostEqual(tests["pass 1 0"]["roof"], 1.0)  # 10 MB at 10 GB/s
        self.assertAlmostEqual(tests["pass 8 0"]["roof"], 2.0)  # 80 million operations at 40 Gop/s
        self.assertAlmostEqual(tests["pass 1 1000"]["roof"], 1.0128)  # and 128 kB of the cache
        self.assertAlmostEqual(tests["pass 8 0"]["times_roof"], 1.25)
        self.assertAlmostEqual(tests["decode 0"]["roof"], 1000.0)
        self.assertAlmostEqual(tests["decode 0"]["times_roof"], 1000 / 900)
        self.assertAlmostEqual(tests["prefill 512"]["roof"], 512 / ((512 * 8e6 + 2e6) / 40e9))
        self.assertAlmostEqual(tests["pass 8 0"]["times_faster"], 4.0)  # against the better peer
        self.assertAlmostEqual(tests["decode 0"]["times_faster"], 2.0)

    def test_attention(self):
        attention = self.report()["attention"]
        self.assertEqual((attention["from"], attention["to"]), (0, 1000))
        self.assertAlmostEqual(attention["rows"][8]["engines"]["dspark"], 0.6)
        self.assertAlmostEqual(attention["rows"][8]["engines"]["fast"], 6.0)
        # One row: 128 kB at 10 GB/s against 256,000 operations at 1 Gop/s.
        self.assertAlmostEqual(attention["rows"][1]["roof"], 0.256)
        self.assertAlmostEqual(attention["rows"][8]["roof"], 8 * 0.256)
        one_depth = self.entry()
        for samples in one_depth["samples"].values():
            for key in [key for key in samples if key.startswith("pass") and key.endswith(" 1000")]:
                del samples[key]
        self.assertIsNone(peer_report.model_report("m.gguf", 2, one_depth, WORK)["attention"])

    def test_verdicts(self):
        found = {verdict["what"]: (round(verdict["value"], 3), verdict["holds"]) for verdict in self.report()["verdicts"]}
        self.assertEqual(found, {
            "8 rows, times faster than the better peer": (4.0, True),
            "8 rows over the roof": (1.25, True),
            "4 rows over 1 row": (1.3, True),
            "prefill, times faster than the better peer": (3.0, True),
            "prefill, share of the roof": (0.6, None),
            "decode at 0, times faster than the better peer": (2.0, True),
            "decode at 0, share of the bandwidth roof": (0.9, None),
            "decode at 1000 over its roof": (1.975, False),
            "attention at 1000, 8 rows over 1 row": (1.2, True),
            "attention at 1000, 8 rows over its roof": (0.293, None),
            # 4,090 tokens take 128 pages, half a MB, beside 16 MB of the file.
            "peak memory - file - cache, MB": (70.0, True),
        })
        missed = self.report(**{"pass 8 0": 4.0, "pass 4 0": 1.5, "decode 0": 800.0, "pass 8 1000": 3.9})["verdicts"]
        held = {verdict["what"]: verdict["holds"] for verdict in missed}
        self.assertFalse(held["8 rows, times faster than the better peer"])
        self.assertFalse(held["8 rows over the roof"])
        self.assertFalse(held["4 rows over 1 row"])
        self.assertFalse(held["decode at 0, times faster than the better peer"])
        lost = next(v for v in missed if v["what"] == "attention at 1000, 8 rows over 1 row")
        self.assertIsNone(lost["value"])
        self.assertEqual(peer_report.verdict_line(lost),
                         "- attention at 1000, 8 rows over 1 row: lost in the noise (asked <= 1.5): open")

    def test_tables(self):
        machine = {"cpu": "a CPU", "date": "today", "commit": "abc", "versions": {"slow": "1.2", "fast": "unknown"}}
        text = peer_report.markdown(machine, [self.report()], ["dspark", "slow", "fast"])
        for line in ("a CPU, today, commit abc, slow (1.2), fast (unknown).",
                     "| test | dspark | slow | fast | times the better peer | roof | times roof |",
                     "| pass of 8 rows at 0, ms | 2.5 (1.25–7.5) | 20 (10–60) | 10 (5–30) | 4.00 | 2 | 1.25 |",
                     "| decode at 0, tok/s | 900 (450–2700) | 300 (150–900) | 450 (225–1350) | 2.00 | 1000 | 1.11 |",
                     "| attention, 8 rows, from 0 to 1000, ms | 0.6 | 20 | 6 | 10.00 | 2.048 | 0.29 |",
                     "- 8 rows over the roof: 1.25 (asked <= 1.6): holds",
                     "- prefill, share of the roof: 0.6 (aim 0.6)",
                     "- decode at 1000 over its roof: 1.97 (asked <= 1.5): missed",
                     "slow: peak memory of the whole run 200 (200–200) MB (file 16 MB); loads in 1.00 s."):
            self.assertIn(line, text.splitlines())
        ours = next(line for line in text.splitlines() if line.startswith("dspark: "))
        self.assertIn("peak memory of the whole run 80 (70–90) MB", ours)
        self.assertIn("loads in 0.20 s", ours)
        self.assertIn("peak - file - cache = 70 of 100 MB", ours)

    def test_a_round(self):
        """Ours for real, a made-up peer, made-up roofs."""
        plan = {"rounds": 1, "repeats": 1, "rows": [1, 4, 8], "depths": [0, 64], "pass_depths": [16, 64], "prefill": 32,
                "roof_s": 0}
        rows = [{"test": "pass", "rows": rows, "ms": 10.0 * rows + depth, "depth": depth} for rows in (1, 4, 8) for depth in (16, 64)]
        rows += [{"test": "prefill", "tokens": 32, "tokens_per_s": 9.0}]
        rows += [{"test": "decode", "depth": depth, "tokens_per_s": 5.0} for depth in (0, 64)]
        peer = self.program("peer", {"rows": rows, "load_s": 0.5, "peak_rss_mb": 1.0})
        engines = [compare_peers.Ours(BINARY), compare_peers.Peer("other", [str(peer)], ["--flash-attn", "1"])]
        results = compare_peers.collect([self.chat_model], [1], plan, engines, self.program("roofs", ROOFS))
        entry = results[self.chat_model, 1]
        self.assertEqual(entry["samples"]["dspark"].keys(), entry["samples"]["other"].keys())
        self.assertEqual({len(values) for values in entry["samples"]["dspark"].values()}, {2})
        self.assertEqual(len(entry["roofs"]), 4)
        self.assertEqual(compare_peers.peer_versions(results, ["other"], {"other": "r7"}), {"other": "r7"})
        report = peer_report.model_report("tiny", 1, entry, gguf_sizes.pass_work(self.chat_model))
        self.assertEqual(report["memory"]["other"]["load_s"]["runs"], 2)
        self.assertGreater(report["memory"]["other"]["peak_rss_mb"]["median"], 1.0)  # measured, not what it said
        (answer,) = entry["extra"]["dspark"]["answers"]
        self.assertGreater(answer["tokens"], 400)
        self.assertEqual(len(report["verdicts"]), 11)
        self.assertIn("attention, 8 rows", peer_report.markdown(
            compare_peers.describe_machine({"other": "r7"}), [report], ["dspark", "other"]))

    def test_peers_that_leave_tests_out(self):
        ours = {"pass 1 0": [1.0], "pass 1 64": [2.0]}
        compare_peers.check_tests({"dspark": ours, "other": {**ours, "more": [1.0]}}, "dspark")
        with self.assertRaises(SystemExit):
            compare_peers.check_tests({"dspark": ours, "old": {"pass 1 0": [1.0]}}, "dspark")

    def test_versions_and_arguments_of_peers(self):
        results = {("m", 1): {"extra": {"a": {"version": "told by itself"}, "b": {}}}}
        self.assertEqual(compare_peers.peer_versions(results, ["a", "b", "c"], {"a": "old", "b": "r7"}),
                         {"a": "told by itself", "b": "r7", "c": "version unknown"})
        peer = self.program("with arguments", {})
        options = argparse.Namespace(binary=BINARY, no_peer=True, peer=[f"ik='{peer}' --flash-attn 0"], peer_version=["ik=r=8"])
        ours, other = compare_peers.read_engines(options)
        self.assertEqual((ours.name, other.name, other.command, other.extra), ("dspark", "ik", [str(peer)], ["--flash-attn", "0"]))
        self.assertEqual(compare_peers.read_versions(options, ["ik"]), {"ik": "r=8"})
        for wrong in ({"peer": ["ik"]}, {"peer": ["ik="]}, {"peer": [f"dspark='{peer}'"]}):
            with self.assertRaises(SystemExit):
                compare_peers.read_engines(argparse.Namespace(**{**vars(options), **wrong}))
        with self.assertRaises(SystemExit):
            compare_peers.read_versions(options, ["another"])

    def test_sizes(self):
        self.assertEqual(gguf_sizes.BLOCKS[39], (32, 17))  # MXFP4
        gemma = {"general.architecture": "gemma3", "gemma3.block_count": 6, "gemma3.attention.head_count": 4,
                 "gemma3.attention.head_count_kv": 1, "gemma3.attention.key_length": 16, "gemma3.attention.sliding_window": 10}
        self.assertEqual(gguf_sizes.cache_bytes(gemma, 100), (100 + 5 * 10) * 16 * 2 * 2)
        self.assertEqual(gguf_sizes.held_cache_bytes(gemma, 100), 6 * 100 * 16 * 2 * 2)
        self.assertEqual(gguf_sizes.attention_operations(gemma, 100), (100 + 5 * 10) * 4 * 16 * 4)


class SpecSpeed(Programs):
    def others(self, *speeds):
        """Made-up peers a, b, ... that decode so many tokens a second, beside a made-up roof."""
        others = object.__new__(spec_speed.Others)
        others.model, others.threads = self.chat_model, 1
        rows = [[{"test": "pass", "rows": 1, "ms": 1.0, "depth": 128}, {"test": "decode", "depth": 128, "tokens_per_s": speed}]
                for speed in speeds]
        others.peers = [compare_peers.Peer(name, [str(self.program(name, {"rows": of_peer}))])
                        for name, of_peer in zip("abc", rows)]
        others.roofs_binary = self.program("roofs", ROOFS)
        others.work = gguf_sizes.pass_work(self.chat_model)
        return others

    def test_beside_a_round(self):
        speeds, roof = self.others(20.0, 50.0).measure()
        self.assertEqual(speeds, {"a": 20.0, "b": 50.0})
        bytes_read = gguf_sizes.pass_work(self.chat_model)
        bytes_read = bytes_read["bytes"] + gguf_sizes.cache_bytes(bytes_read["metadata"], 128)
        self.assertAlmostEqual(roof, ROOFS["read_gb_per_s"] * 1e9 / bytes_read, delta=roof * 1e-6)

    def test_a_task(self):
        task = spec_speed.Task("t", ["off", "adaptive"])
        task.add({"off": ([90, 110], [1.0]), "adaptive": ([200, 200], [2.5])}, ({"a": 20.0, "b": 50.0}, 160.0))
        self.assertEqual(task.row(), "| t | 100 (100-100) | 1.00, 1.00 | 200 (200-200) | 2.00, 2.50 | yes |")
        self.assertEqual(task.peer_row(), "| t | 200 | 20 | 50 | 160 | 4.00 | 1.25 |")

    def test_a_run(self):
        drafter = write_tiny_drafter(self.path / "drafter")
        prompts = self.path / "some.jsonl"
        prompts.write_text(json.dumps({"prompt": "the"}) + "\n")
        command = [sys.executable, "-B", str(ROOT / "bench" / "spec_speed.py"), "-m", self.chat_model, "-d", str(drafter),
                   "--dspark", BINARY, "--policies", "off,adaptive", "--max-tokens", "40", "--threads", "1", str(prompts)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240 * SLOWDOWN, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        head, _, row, mean = done.stdout.splitlines()
        self.assertIn("adaptive, tok/s", head)
        self.assertTrue(row.startswith("| some | ") and row.endswith("| yes |"), row)
        self.assertTrue(mean.startswith("| mean of tasks | | 1.00 |"), mean)
        done = subprocess.run([*command, "--peer", "x=y"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--peer: needs --peers", done.stderr)


if __name__ == "__main__":
    unittest.main()
