#!/usr/bin/env python3
"""What /metrics says of a learned drafter with a confidence head under the adaptive policy: the cost table and its
corrections, budgets, predicted and measured steps, and how far confidences held. Drafts of the tiny drafter are noise; that
its numbers belong to each other is what is tested."""

import json
import re
import unittest

import serve_harness
from serve_harness import ROOT, Server, chat
from tiny_drafter import write_tiny_drafter

BLOCK = 4
FLAGS = ("--parallel", "4", "-c", "512", "-t", "2", "--no-hybrid", "--spec", "adaptive")
# A second a pass, so that what passes really take shows as a correction, and drafts that seem to be free.
VERIFY = [[1, 1.0], [2, 1.0], [8, 1.0], [64, 1.5]]
DRAFT = [[1, 1e-6], [4, 1e-6]]


class LearnedMetrics(serve_harness.Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        drafter = write_tiny_drafter(cls.path / "drafter", block=BLOCK)
        table = cls.path / "costs.json"
        flags = ("-m", cls.chat_model, "-d", drafter, *FLAGS, "--cost-table", str(table))
        # A server that ends writes what it measured; the times are made up, whose they are stays.
        Server(*flags).stop()
        saved = json.loads(table.read_text())
        saved["verify"], saved["draft"], saved["draft_short"] = VERIFY, DRAFT, []
        saved["context_s"] = saved["row_context_s"] = saved["overhead_s"] = 0.0
        table.write_text(json.dumps(saved))
        cls.server = Server(*flags)
        cls.addClassCleanup(cls.server.stop)
        cls.before = cls.metrics()
        cls.answer()
        cls.after = cls.metrics()
        # How often the policy drafts hangs on the clock; these draft always, and are watched too.
        cls.answer(speculation={"policy": f"fixed:{BLOCK}"})
        cls.more = cls.metrics()

    @classmethod
    def answer(cls, **fields):
        # Where it is hot, the noise that drafter and model share decides, and now and then they agree.
        for seed, text in enumerate(("hello", "a b c d e f", "one two three", "abcabcabc")):
            body = {**chat(text, max_tokens=40, ignore_eos=True), "temperature": 2.0, "seed": seed, **fields}
            answer = cls.server.post("/v1/chat/completions", body)
            assert answer.status == 200, answer.body
        cls.server.wait_idle()

    @classmethod
    def metrics(cls):
        """{name: {value of the label that tells apart, or "": value}}"""
        found = {}
        for line in cls.server.get("/metrics").body.decode().splitlines():
            match = re.match(r"([\w:]+)(?:\{(.*)\})? (\S+)$", line)
            if match is None:
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
            labels.pop("model_name", None)
            labels.pop("engine", None)
            found.setdefault(match.group(1), {})["".join(labels.values())] = float(match.group(3))
        return found

    def value(self, name):
        self.assertIn(name, self.after)
        self.assertEqual(list(self.after[name]), [""], name)
        return self.after[name][""]

    def test_costs_are_those_of_the_table(self):
        for metrics in (self.before, self.after):
            self.assertEqual(metrics["dspark_cost_verify_seconds"], {str(n): seconds for n, seconds in VERIFY})
        self.assertEqual(self.before["dspark_cost_correction"][""], 1.0)
        # No pass of a tiny model takes half a second, no pass of its drafter a microsecond.
        self.assertTrue(0 < self.value("dspark_cost_correction") < 0.5, self.value("dspark_cost_correction"))
        self.assertGreater(self.value("dspark_cost_draft_correction"), 1.0)

    def test_steps_are_predicted_and_measured(self):
        predicted = self.value("dspark_step_predicted_seconds_total")
        measured = self.value("dspark_step_measured_seconds_total")
        # The first steps are believed to take a second each.
        self.assertGreater(predicted, 4.0)
        self.assertTrue(0 < measured < predicted, (measured, predicted))
        for kind in ("predicted", "measured"):
            newest = self.value(f"dspark_step_{kind}_seconds")
            self.assertTrue(0 < newest <= self.value(f"dspark_step_{kind}_seconds_total"), newest)
        self.assertEqual(self.before["dspark_step_measured_seconds_total"][""], 0.0)

    def test_budgets(self):
        planned, paused = self.value("dspark_planned_steps_total"), self.value("dspark_paused_steps_total")
        self.assertTrue(0 <= paused < planned, (paused, planned))
        verified = self.value("dspark_spec_decode_num_verified_tokens_total")
        self.assertGreater(verified, 0)
        self.assertEqual(self.value("dspark_verify_budget_total"), verified)
        self.assertTrue(0 <= self.value("dspark_verify_budget") <= BLOCK)
        self.assertTrue(0 <= self.value("dspark_draft_length") <= BLOCK)

    def check_positions(self, metrics):
        predicted = metrics["dspark_calibration_predicted_survival"]
        observed = metrics["dspark_calibration_observed_survival"]
        error = metrics["dspark_calibration_error"]
        positions = [str(j) for j in range(len(error))]
        self.assertTrue(1 <= len(positions) <= BLOCK)
        for values in (predicted, observed, error):
            self.assertEqual(sorted(values), positions)
        checked = metrics["dspark_spec_decode_num_verified_tokens_per_pos_total"]
        accepted = metrics["vllm:spec_decode_num_accepted_tokens_per_pos_total"]
        for j in positions:
            self.assertTrue(0 <= predicted[j] <= 1)
            self.assertAlmostEqual(observed[j], accepted[j] / checked[j], places=4)
            self.assertTrue(abs(predicted[j] - observed[j]) - 1e-4 <= error[j] <= 1, (j, error[j]))

    def test_calibration_by_position(self):
        self.assertNotIn("dspark_calibration_error", self.before)
        for metrics in (self.after, self.more):
            self.check_positions(metrics)
        self.assertTrue(0 < self.more["dspark_calibration_observed_survival"]["0"] < 1)
        # Too sure or too unsure: noise is never right about itself.
        self.assertGreater(self.more["dspark_calibration_error"]["0"], 0.05)

    def test_calibration_by_bin(self):
        for metrics in (self.after, self.more):
            drafts = metrics["dspark_calibration_bin_drafts"]
            checked = metrics["dspark_spec_decode_num_verified_tokens_per_pos_total"]
            self.assertEqual(sum(drafts.values()), sum(checked.values()))
            for b, mean in metrics["dspark_calibration_bin_predicted_survival"].items():
                self.assertTrue(int(b) / 20 - 1e-4 <= mean <= (int(b) + 1) / 20 + 1e-4, (b, mean))
            observed = metrics["dspark_calibration_bin_observed_survival"]
            self.assertEqual(set(observed), set(drafts))
            accepted = metrics["vllm:spec_decode_num_accepted_tokens_per_pos_total"]
            self.assertAlmostEqual(sum(observed[b] * drafts[b] for b in drafts), sum(accepted.values()), places=2)
        self.assertGreater(len(drafts), 5)

    def test_other_policies_have_no_budget(self):
        for name in ("dspark_verify_budget_total", "dspark_planned_steps_total"):
            self.assertEqual(self.more[name], self.after[name])
        self.assertGreater(self.more["dspark_spec_decode_num_verified_tokens_total"][""],
                           self.value("dspark_spec_decode_num_verified_tokens_total") + 100)

    def test_the_dashboard_finds_its_calibration_and_costs(self):
        dashboard = (ROOT / "deploy" / "grafana-dashboard.json").read_text()
        asked = set(re.findall(r"dspark_(?:calibration|cost|paused)[a-z0-9_]+", dashboard))
        for name in ("dspark_calibration_bin_observed_survival", "dspark_cost_verify_seconds", "dspark_paused_steps_total"):
            self.assertIn(name, asked)
        self.assertLessEqual(asked, set(self.after))


if __name__ == "__main__":
    serve_harness.main()
