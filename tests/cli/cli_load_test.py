#!/usr/bin/env python3
"""`dspark bench load` and `dspark bench schedule` on tiny models; no times are judged."""

import json
import unittest
import xml.dom.minidom
from pathlib import Path

from harness import Tool
from tiny_drafter import write_tiny_drafter

QUICK = ("-t", "2", "-n", "6-12", "--warmup", "3", "--requests", "5")


class Load(Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.drafter = write_tiny_drafter(cls.path / "drafter")
        cls.files = []
        for task, prompts in {"letters": ["hello there", "abcabcabc abcabc", "zzzz zzzz"], "other": ["one two one two"]}.items():
            path = cls.path / f"{task}.jsonl"
            path.write_text("".join(json.dumps({"task": task, "id": i, "prompt": p}) + "\n" for i, p in enumerate(prompts)))
            cls.files.append(str(path))

    def load(self, *arguments):
        """The report of a run, and its tables."""
        result = self.succeed("bench", "load", "-m", self.chat_model, *QUICK, "--json", "out.json", *arguments)
        return json.loads((self.path / "out.json").read_text()), result.stdout

    def check_round(self, run, policy):
        spec = run["speculation"]
        self.assertEqual(spec["drafted"], spec["verified"] + spec["trimmed"])
        self.assertGreaterEqual(spec["verified"], spec["accepted"])
        if policy == "off":
            self.assertEqual(spec["drafted"], 0)
            self.assertEqual(run["draft_s"], 0)
        for times in (run["ttft_s"], run["inter_token_s"], run["update_gap_s"]):
            self.assertLessEqual(times["p50"], times["p95"])
            self.assertLessEqual(times["p95"], times["p99"])
            self.assertLessEqual(times["p99"], times["max"])
        parts = sum(run[key] for key in ("draft_s", "forward_s", "commit_s", "loop_s", "outside_s"))
        self.assertAlmostEqual(parts, run["seconds"], places=5)
        self.assertGreater(run["tokens"], 0)
        self.assertAlmostEqual(run["tokens_per_s"], run["tokens"] / run["seconds"], delta=1e-6 * run["tokens_per_s"])
        self.assertGreater(run["steps"], 0)
        self.assertEqual(run["answers"], 5)
        self.assertFalse(run["cut"])
        self.assertGreaterEqual(run["prefix_tokens"], 0)
        self.assertEqual(run["preemptions"], 0)

    def test_sweep(self):
        policies = ["off", "fixed:2", "threshold:0.50", "adaptive"]
        report, text = self.load("-d", self.drafter, "--concurrency", "1,3", "--policies", "off,fixed:2,threshold:0.5,adaptive",
                                 "-r", "2", "--plot", "plots", *self.files)
        self.assertEqual([float(p.split(":")[1]) if ":" in p else p for p in report["policies"]],
                         [float(p.split(":")[1]) if ":" in p else p for p in policies])
        self.assertEqual((report["bench"], report["kind"].split("+")[0], report["arrivals"]), ("load", "dspark", "closed"))
        self.assertEqual(report["sources"], ["letters", "other"])
        self.assertEqual(report["costs"]["verify"][0]["n"], 1)
        self.assertEqual([(c["concurrency"], c["policy"]) for c in report["cells"]],
                         [(n, p) for n in (1, 3) for p in report["policies"]])
        for cell in report["cells"]:
            self.assertEqual(len(cell["rounds"]), 2)
            speed = cell["tokens_per_s"]
            self.assertLessEqual(speed["min"], speed["median"])
            self.assertLessEqual(speed["median"], speed["max"])
            for run in cell["rounds"]:
                self.check_round(run, cell["policy"])
                decode, prompt = run["steps_without_prompts"], run["steps_with_prompts"]
                self.assertEqual(run["measured_over_predicted"], decode["measured_over_predicted"])
                self.assertEqual(decode["steps"] + prompt["steps"], run["steps"])
                for kind in (decode, prompt):
                    self.assertGreater(kind["steps"], 0)
                    self.assertGreater(kind["measured_over_predicted"], 0)
        self.assertEqual(report["texts"]["different"], 0)
        # All runs but the first of a request are compared: 16 runs of 5 requests and their warm-up.
        self.assertEqual(report["texts"]["reference"], "first runs")
        self.assertGreaterEqual(report["texts"]["compared"], 16 * 5 - 5)
        self.assertEqual([v["concurrency"] for v in report["verdicts"]], [1, 3])
        for verdict in report["verdicts"]:
            self.assertIn(verdict["best_fixed"], ("off", "fixed:2"))
            self.assertEqual(verdict["margin"], 0.98)
            for name in ("adaptive_over_off", "adaptive_over_best_fixed"):
                rounds = verdict[name + "_rounds"]
                self.assertLessEqual(rounds["min"], rounds["median"])
                self.assertLessEqual(rounds["median"], rounds["max"])
                self.assertGreater(rounds["turns"], 0)
        for part in ("1 client(s), 5 requests", "3 client(s)", "all the same", "adaptive / off"):
            self.assertIn(part, text)
        for name in ("pareto", "latency"):
            svg = (self.path / "plots" / f"{name}.svg").read_text()
            document = xml.dom.minidom.parseString(svg)
            self.assertEqual(len(document.getElementsByTagName("polyline")), 4)
            self.assertNotRegex(svg, "nan|inf|href")

    def test_spread_of_ratios(self):
        flags = ("-d", self.drafter, "--concurrency", "2", "-n", "40", "--requests", "8", "--ignore-eos", *self.files)
        report, text = self.load(*flags, "--policies", "off,adaptive", "-r", "2", "--turn-seconds", "0.0001")
        verdict = report["verdicts"][0]
        self.assertGreaterEqual(verdict["adaptive_over_off_rounds"]["turns"], 8)
        self.assertGreaterEqual(verdict["adaptive_over_off_error"], 0)
        self.assertRegex(text, r"adaptive / off \d\.\d{3} \+- \d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)")
        report, text = self.load(*flags, "--policies", "off,adaptive", "-r", "1", "--turn-seconds", "0")
        self.assertIsNone(report["verdicts"][0]["adaptive_over_off_error"])
        self.assertRegex(text, r"adaptive / off \d\.\d{3}:")

    def test_single_runs_as_reference(self):
        flags = ("-d", self.drafter, "--policies", "off,fixed:2,adaptive", "-r", "1", "--reference", *self.files)
        for more in ((), ("--temp", "1"), ("--arrivals", "poisson", "--rates", "300")):
            report, text = self.load(*flags, *more, "--concurrency", "3")
            texts = report["texts"]
            self.assertEqual((texts["reference"], texts["different"]), ("single runs", 0))
            self.assertGreaterEqual(texts["compared"], 3 * 5)  # of the first runs too
            self.assertIn("compared with single runs: all the same", text)
        # What is measured stays the same.
        counts = [self.load("-d", self.drafter, "--concurrency", "1", "--policies", "off,fixed:3", "-r", "1", *more, *self.files)[0]
                  for more in ((), ("--reference",))]
        for a, b in zip(counts[0]["cells"], counts[1]["cells"]):
            for key in ("tokens", "steps", "speculation", "prompt_tokens", "prefix_tokens"):
                self.assertEqual(a["rounds"][0][key], b["rounds"][0][key], key)
        self.assertEqual(counts[1]["texts"]["compared"], counts[0]["texts"]["compared"] + 5)

    def test_counts_do_not_depend_on_time(self):
        flags = ("-d", self.drafter, "--concurrency", "1", "--policies", "off,fixed:3", "-r", "1", *self.files)
        runs = [self.load(*flags)[0] for _ in range(2)]
        for a, b in zip(runs[0]["cells"], runs[1]["cells"]):
            for key in ("tokens", "steps", "speculation", "prompt_tokens"):
                self.assertEqual(a["rounds"][0][key], b["rounds"][0][key], key)
        other = self.load(*flags, "--seed", "9")[0]
        self.assertNotEqual([c["rounds"][0]["steps"] for c in runs[0]["cells"]],
                            [c["rounds"][0]["steps"] for c in other["cells"]])

    def test_mixtures(self):
        flags = ("--concurrency", "1", "-r", "1", "--policies", "off")
        only = [self.load(*flags, "--synthetic", "5,40", "--weights", weights)[0]["cells"][0]["rounds"][0]
                for weights in ("1,0", "0,1")]
        self.assertLess(only[0]["prompt_tokens"] + only[0]["prefix_tokens"],
                        only[1]["prompt_tokens"] + only[1]["prefix_tokens"])
        report, _ = self.load(*flags, "--synthetic", "5", "--limit", "1", "--raw", "--ignore-eos", *self.files)
        self.assertEqual(report["sources"], ["letters", "other", "synthetic 5"])
        self.assertEqual(report["kind"], "none")
        self.assertEqual(report["verdicts"], [])

    def test_sampling_and_accept_rules(self):
        flags = ("-d", self.drafter, "--concurrency", "2", "-r", "1", "--policies", "off,adaptive", "--temp", "1", *self.files)
        report, _ = self.load(*flags)
        self.assertTrue(report["texts"]["comparable"])
        self.assertEqual(report["texts"]["different"], 0)
        report, text = self.load(*flags, "--accept", "rejection")
        self.assertFalse(report["texts"]["comparable"])
        self.assertIn("not compared", text)

    def test_drafters(self):
        flags = ("--concurrency", "2", "-r", "1", "--policies", "off,fixed:2,adaptive", *self.files)
        report, _ = self.load("-d", "ngram", *flags)
        self.assertEqual((report["kind"], report["random_drafter"]), ("ngram", False))
        good, _ = self.load("-d", self.drafter, "--no-hybrid", *flags)
        self.assertEqual(good["kind"], "dspark")
        noise, text = self.load("-d", self.drafter, "--random-drafter", *flags)
        self.assertTrue(noise["random_drafter"])
        self.assertEqual(noise["verdicts"][0]["margin"], 0.97)
        self.assertIn("random weights", text)
        # Other weights propose with other confidences.
        record = ("bench", "load", "-m", self.chat_model, *QUICK, "-d", self.drafter, "--no-hybrid", *self.files, "--record")
        self.succeed(*record, "a.jsonl")
        self.succeed(*record, "b.jsonl", "--random-drafter")
        self.assertNotEqual((self.path / "a.jsonl").read_text(), (self.path / "b.jsonl").read_text())

    def test_memory(self):
        # Drafts are tried within 1600 steps however dear they seem (DraftGate), and lookup finds some in most of them.
        # A pass of the drafter costs several of the tiny model: short answers end before one is tried.
        flags = ("-d", "ngram", "--concurrency", "1", "-r", "1", "--policies", "off,adaptive", "-n", "300", "--requests", "8",
                 "--ignore-eos", *self.files)
        cold, _ = self.load(*flags)
        self.assertNotIn("remembered", cold)
        warm, _ = self.load(*flags, "--remember")
        first = warm["remembered"][0]
        self.assertGreaterEqual(first["tries"], 1)
        self.assertTrue(0 <= first["hits"] <= first["tries"])
        self.assertEqual(len(warm["cells"]), 2)
        self.assertEqual(warm["texts"]["different"], 0)

    def test_open_arrivals(self):
        for arrivals in ("poisson", "bursty:3"):
            report, text = self.load("-d", "ngram", "--arrivals", arrivals, "--rates", "200,400", "--max-sequences", "3",
                                     "-r", "1", "--policies", "off,adaptive", *self.files)
            self.assertEqual(report["arrivals"], arrivals)
            self.assertEqual(report["max_sequences"], 3)
            self.assertEqual([c["rate"] for c in report["cells"]], [200, 200, 400, 400])
            for cell in report["cells"]:
                self.check_round(cell["rounds"][0], cell["policy"])
            self.assertIn("200 requests/s", text)

    def test_burst(self):
        report, text = self.load("-d", self.drafter, "--burst", "1,4,1", "--phase-seconds", "0.3", "-r", "2", "--policies",
                                 "off,fixed:2,adaptive", "--turn-seconds", "0.02", "--reference", "--plot", "burst", *self.files)
        self.assertEqual(report["burst"], [1, 4, 1])
        self.assertEqual([b["policy"] for b in report["bursts"]], ["off", "fixed:2", "adaptive"])
        for burst in report["bursts"]:
            self.assertEqual([[p["clients"] for p in phases] for phases in burst["rounds"]], [[1, 4, 1]] * 2)
            self.assertEqual(burst["passed_over"], 0)
            self.assertEqual(max(step["clients"] for step in burst["steps"]), 4)
            self.assertEqual(burst["steps"][0]["clients"], 1)
            waits = [phase["longest_wait_s"] for phases in burst["rounds"] for phase in phases]
            self.assertGreater(min(waits), 0)
            self.assertEqual(burst["longest_wait_s"], max(waits))
        self.assertEqual(report["texts"]["different"], 0)
        self.assertIn("clients over time: 1, 4, 1", text)
        self.assertIn("compared with single runs: all the same", text)
        self.assertEqual([v["clients"] for v in report["phase_verdicts"]], [1, 4, 1])
        for i, verdict in enumerate(report["phase_verdicts"]):
            rates = {b["policy"]: [phases[i]["tokens_per_s"] for phases in b["rounds"]] for b in report["bursts"]}
            self.assertIn(verdict["best_fixed"], ("off", "fixed:2"))
            self.assertEqual(verdict["longest_wait_s"], max(phases[i]["longest_wait_s"] for phases in report["bursts"][2]["rounds"]))
            ratios = [a / b for a, b in zip(rates["adaptive"], rates["off"])]
            self.assertAlmostEqual(verdict["adaptive_over_off_rounds"]["min"], min(ratios))
            self.assertAlmostEqual(verdict["adaptive_over_off_rounds"]["median"], sum(ratios) / 2)
            self.assertRegex(text, fr"phase {i + 1}, {verdict['clients']} client\(s\): adaptive / \S+ \(best fixed\) \d")
        for name in ("off", "fixed-2", "adaptive"):
            self.check_burst_picture(self.path / "burst" / f"burst-{name}.svg", 4)

    def check_burst_picture(self, path, most_clients):
        """The vertical axis counts clients and drafts."""
        document = xml.dom.minidom.parseString(path.read_text())
        ticks = sorted((float(text.getAttribute("y")) - 4, float(text.firstChild.data))
                       for text in document.getElementsByTagName("text") if text.getAttribute("text-anchor") == "end")
        (high_y, high), (low_y, low) = ticks[0], ticks[-1]
        self.assertEqual(low, 0)
        self.assertGreaterEqual(high, most_clients)
        clients = next(line for line in document.getElementsByTagName("polyline") if line.getAttribute("stroke-dasharray"))
        top = min(float(point.split(",")[1]) for point in clients.getAttribute("points").split())
        self.assertAlmostEqual((low_y - top) / (low_y - high_y) * high, most_clients, delta=0.05)

    def test_cache_too_small_for_all(self):
        report, _ = self.load("-d", "ngram", "--concurrency", "4", "-r", "1", "--policies", "off,fixed:2", "--kv-tokens", "130",
                              "--synthetic", "20")
        self.assertEqual(report["texts"]["different"], 0)
        self.assertEqual(report["cells"][0]["rounds"][0]["answers"], 5)

    def test_limits_of_time(self):
        report, text = self.load("--concurrency", "1", "-r", "1", "--requests", "100000", "--seconds", "0.3", "--synthetic", "5")
        self.assertTrue(report["cells"][0]["rounds"][0]["cut"])
        self.assertRegex(text, r"\bcut\b")

    def test_output(self):
        flags = ("bench", "load", "-m", self.chat_model, *QUICK, "--concurrency", "1", "-r", "1", "--synthetic", "4")
        self.assertEqual(json.loads(self.succeed(*flags, "--json", "-").stdout)["bench"], "load")
        verbose = self.succeed(*flags, "-v")
        self.assertIn("round 1 of 1, load 1, off", verbose.stderr)
        self.assertEqual(self.succeed(*flags).stderr, "")

    def test_errors(self):
        base = ("bench", "load", "-m", self.chat_model)
        prompts = ("--synthetic", "4")
        self.assertIn("--synthetic", self.fail_with(1, *base))
        self.assertIn("nothing.jsonl", self.fail_with(1, *base, "nothing.jsonl"))
        for flags, part in ((("--policies", "often"), "--policies"), (("--policies", "fixed:2"), "needs a drafter"),
                            (("--policies", "off,off"), "twice"), (("-n", "0"), "--max-tokens"), (("-n", "9-3"), "--max-tokens"),
                            (("-n", "x"), "--max-tokens"), (("-n", "70000"), "context"), (("--temp", "-1"), "--temp"),
                            (("--arrivals", "sometimes"), "--arrivals"), (("--weights", "1,2"), "--weights"),
                            (("--weights", "0"), "--weights"), (("--weights", "-1"), "--weights"),
                            (("--arrivals", "poisson", "--burst", "1,2"), "--burst"), (("--random-drafter",), "--random-drafter"),
                            (("--remember",), "--remember"),
                            (("-d", "ngram", "--random-drafter"), "--random-drafter"), (("--record", "x"), "--record"),
                            (("-d", "ngram", "--reference", "--temp", "1", "--accept", "block"), "--reference"),
                            (("-d", "nobody"), "--drafter"), (("--accept", "luck"), "--accept"),
                            (("--kv-type", "f8"), "--kv-type")):
            self.assertIn(part, self.fail_with(1, *base, *prompts, *flags), flags)
        for flags, part in ((("--concurrency", "0"), "--concurrency"), (("--rounds", "0"), "--rounds"), (("--seconds", "0"), "--seconds"),
                            (("--requests", "-1"), "--requests"), (("--warmup", "0"), "--warmup"), (("--rates", "0"), "--rates"),
                            (("--phase-seconds", "-1"), "--phase-seconds"), (("--synthetic", "0"), "--synthetic"),
                            (("--concurency", "1"), "did you mean '--concurrency'"), (("--spec", "off"), "--spec"),
                            (("--burst", "0"), "--burst"), (("--kv-tokens", "-1"), "--kv-tokens"), (("--limit", "-1"), "--limit"),
                            (("--max-sequences", "-1"), "--max-sequences")):
            self.assertIn(part, self.fail_with(2, *base, *prompts, *flags), flags)
        (self.path / "empty.jsonl").write_text("\n")
        self.assertIn("no prompts", self.fail_with(1, *base, "empty.jsonl"))


class Schedule(Load):
    """The way from recorded rounds to a simulation. (Inherits the models, not the tests.)"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.trace = str(cls.path / "rounds.jsonl")
        cls.record_output = cls.record(cls.drafter, cls.trace)

    @classmethod
    def record(cls, drafter, path, *more):
        tool = cls("runTest")
        return tool.succeed("bench", "load", "-m", cls.chat_model, "-t", "2", "-n", "20", "--requests", "6", "-d", drafter,
                            "--no-hybrid", "--record", path, *more, *cls.files).stdout

    def runTest(self):
        pass

    def simulate(self, *arguments):
        result = self.succeed("bench", "schedule", "--trace", self.trace, "--json", "sim.json", *arguments)
        return json.loads((self.path / "sim.json").read_text()), result.stdout

    def test_trace(self):
        self.assertRegex(self.record_output, r"rounds.jsonl: 6 answers, \d+ tokens")
        lines = [json.loads(line) for line in Path(self.trace).read_text().splitlines()]
        head = lines.pop(0)
        self.assertEqual((head["dspark_trace"], head["drafter"], head["max_block"], head["has_confidence"]),
                         (1, "dspark", 4, True))
        self.assertEqual(len(lines), 6)
        for answer in lines:
            self.assertLessEqual(answer["output"], 20)
            # A proposal behind every token but the last two (the last one is the target's own).
            self.assertEqual([r[0] for r in answer["rounds"]], list(range(max(0, answer["output"] - 1)))[:len(answer["rounds"])])
            for index, accepted, n, *confidences in answer["rounds"]:
                self.assertLessEqual(accepted, n)
                self.assertEqual(len(confidences), n)
                self.assertTrue(all(0 <= c <= 1000 for c in confidences))
        with open(self.trace) as file:
            self.assertNotIn("hello", file.read())
        again = str(self.path / "again.jsonl")
        self.record(self.drafter, again)
        with open(self.trace) as a, open(again) as b:
            self.assertEqual(a.read(), b.read())
        lookup = str(self.path / "lookup.jsonl")
        self.record("ngram", lookup)
        with open(lookup) as file:
            self.assertFalse(json.loads(file.readline())["has_confidence"])

    def test_agrees_with_the_engine(self):
        # Fixed lengths: drafts verified and accepted in the simulation are those of the real engine.
        for policy in ("fixed:1", "fixed:3", "fixed:4"):
            flags = ("-n", "20", "--requests", "6", "-d", self.drafter, "--no-hybrid", "--policies", policy, "-r", "1",
                     "--concurrency", "1")
            report, _ = self.load(*flags, "--warmup", "1", *self.files)
            real = report["cells"][0]["rounds"][0]["speculation"]
            simulated, _ = self.simulate("--concurrency", "1", "--requests", "6", "--policies", policy)
            # The real window holds a piece of the request after the last one too.
            cell = simulated["cells"][0]
            self.assertAlmostEqual(real["tokens_per_round"], cell["tokens_per_round"], delta=0.15)
            self.assertLessEqual(abs(real["accepted"] - cell["accepted"]), 6)

    def test_simulation(self):
        report, text = self.simulate("--concurrency", "1,8,300", "--plot", "sim")
        policies = report["policies"]
        self.assertEqual(len(report["cells"]), 3 * len(policies))
        for cell in report["cells"]:
            self.assertEqual(cell["drafted"], cell["verified"] + cell["trimmed"])
            self.assertEqual(cell["tokens"], cell["rounds"] + cell["accepted"] + cell["requests"])
            self.assertAlmostEqual(cell["seconds"], cell["draft_s"] + cell["verify_s"] + cell["overhead_s"], places=6)
        tokens = {(c["concurrency"], c["tokens"]) for c in report["cells"]}
        self.assertEqual(len(tokens), 3)  # the same work for every policy
        self.assertEqual([v["concurrency"] for v in report["verdicts"]], [1, 8, 300])
        self.assertIn("300 client(s), 1200 requests", text)
        xml.dom.minidom.parseString((self.path / "sim" / "schedule.svg").read_text())
        self.assertEqual(self.simulate("--concurrency", "1,8,300", "--plot", "sim")[0], report)

    def test_costs_and_arrivals(self):
        for curve in ("flat", "linear", "gpu"):
            report, _ = self.simulate("--curve", curve, "--arrivals", "poisson", "--rates", "2,50", "--requests", "30",
                                      "--policies", "off,adaptive", "--probe-rows", "32", "--max-sequences", "16", "--seed", "3")
            self.assertEqual([c["rate"] for c in report["cells"]], [2, 2, 50, 50])
        costs = {"verify": [{"n": 1, "seconds": 0.5}], "draft": [{"n": 1, "seconds": 0.25}]}
        (self.path / "costs.json").write_text(json.dumps(costs))
        report, _ = self.simulate("--costs", "costs.json", "--concurrency", "2", "--requests", "6", "--policies", "off,fixed:2")
        off, fixed = report["cells"]
        self.assertAlmostEqual(off["seconds"], 0.5 * off["steps"])
        self.assertEqual(off["draft_s"], 0)
        self.assertAlmostEqual(fixed["verify_s"], 0.5 * fixed["steps"])
        # A report of `bench load` serves as a cost table.
        self.load("-d", self.drafter, "--concurrency", "2", "-r", "1", *self.files)
        (self.path / "out.json").rename(self.path / "measured.json")
        self.simulate("--costs", "measured.json", "--concurrency", "2")

    def test_schedule_errors(self):
        base = ("bench", "schedule")
        self.assertIn("--trace", self.fail_with(2, *base))
        self.assertIn("nowhere", self.fail_with(1, *base, "--trace", "nowhere"))
        (self.path / "bad.jsonl").write_text('{"dspark_trace":1}\n')
        self.assertRegex(self.fail_with(1, *base, "--trace", "bad.jsonl"), r"bad.jsonl:1: max_block")
        base += ("--trace", self.trace)
        for flags, part in ((("--curve", "steep"), "--curve"), (("--policies", "often"), "--policies"),
                            (("--arrivals", "never"), "--arrivals"), (("--costs", "nowhere.json"), "nowhere.json")):
            self.assertIn(part, self.fail_with(1, *base, *flags), flags)
        for text, part in (("[]", "object"), ("{}", "verify"), ('{"verify": []}', "verify"),
                           ('{"verify": [{"n": 2, "seconds": 1}]}', "verify"), ('{"verify": [{"n": 1}]}', r"verify\[0\]"),
                           ('{"verify": [{"n": 1, "seconds": 1}], "draft": 3}', "draft"),
                           ('{"verify": [{"n": 1, "seconds": 1}], "overhead_s": "x"}', "overhead_s"),
                           ('{"verify": [{"n": 1, "seconds": 1}], "draft_length": 1e9}', "draft_length")):
            (self.path / "wrong.json").write_text(text)
            self.assertRegex(self.fail_with(1, *base, "--costs", "wrong.json"), "wrong.json.*" + part)
        for flags in (("--concurrency", "0"), ("--rates", "0"), ("--requests", "-1"), ("--max-sequences", "0"), ("--probe-rows", "-1")):
            self.assertIn(flags[0], self.fail_with(2, *base, *flags), flags)


# The tests of Load run once.
for name in [name for name in vars(Load) if name.startswith("test_")]:
    setattr(Schedule, name, None)


if __name__ == "__main__":
    unittest.main()
