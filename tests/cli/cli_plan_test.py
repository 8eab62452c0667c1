"""dspark plan: numbers of a published pair, from configs alone."""

import json
import unittest

from harness import ROOT, Tool

PLANS = ROOT / "tests" / "data" / "plan"


class Plan(Tool):
    def plan(self, target, draft, *options):
        draft = draft if draft == "bundled" else str(PLANS / draft)
        return json.loads(self.succeed("plan", "-m", str(PLANS / target), "--draft", draft, "--json", *options).stdout)

    def test_a_pair(self):
        plan = self.plan("qwen3_4b", "dspark_qwen3_4b_block7", "--memory", "8GB", "--bandwidth", "60G")
        self.assertEqual(plan["draft"]["parameters"], 1393133569)
        self.assertEqual(plan["memory_bytes"], 8e9)
        self.assertFalse(plan["fits"])
        self.assertAlmostEqual(plan["plain_tokens_per_second"], 60e9 / plan["step_bytes"], places=6)

    def test_fewer_bits_fit(self):
        plan = self.plan("qwen3_4b", "dspark_qwen3_4b_block7", "--memory", "8GiB", "--bits", "4.5")
        self.assertTrue(plan["fits"])
        self.assertNotIn("plain_tokens_per_second", plan)

    def test_the_drafter_inside(self):
        self.assertEqual(self.plan("deepseek_v4_flash", "bundled")["block"], 5)

    def test_errors(self):
        model = str(PLANS / "qwen3_4b")
        self.assertIn("--memory: want a size", self.fail_with(1, "plan", "-m", model, "--memory", "12X"))
        wrong = str(PLANS / "dspark_qwen3_8b_block7")
        self.assertIn("not made for this target", self.fail_with(1, "plan", "-m", model, "--draft", wrong))


if __name__ == "__main__":
    unittest.main()
