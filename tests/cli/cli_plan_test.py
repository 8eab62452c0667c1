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
        self.assertFalse(plan["bandwidth_measured"])
        self.assertAlmostEqual(plan["plain_tokens_per_second"], 60e9 / plan["step_bytes"], places=6)

    def test_fewer_bits_fit(self):
        plan = self.plan("qwen3_4b", "dspark_qwen3_4b_block7", "--memory", "8GiB", "--bits", "4.5")
        self.assertTrue(plan["fits"])
        self.assertLess(plan["target"]["weight_bytes"], 8.2e9 * 4.5 / 16)

    def test_bandwidth_is_measured_when_it_is_not_given(self):
        plan = self.plan("qwen3_4b", "dspark_qwen3_4b_block7")
        self.assertTrue(plan["bandwidth_measured"])
        self.assertGreater(plan["bandwidth_bytes_per_second"], 1e8)  # a disk is not what is read
        self.assertAlmostEqual(plan["plain_tokens_per_second"],
                               plan["bandwidth_bytes_per_second"] / plan["step_bytes"], places=6)
        text = self.succeed("plan", "-m", str(PLANS / "qwen3_4b")).stdout
        self.assertRegex(text, r"reads [0-9.]+ GB/s \(measured just now on this machine\)")

    def test_the_drafter_inside(self):
        plan = self.plan("deepseek_v4_flash", "bundled", "--memory", "256G", "--bandwidth", "400G")
        self.assertEqual(plan["block"], 5)
        # Files of 167 GB: experts in FP4, which stay so, the rest in FP8, which becomes BF16 in memory.
        disk = plan["target"]["disk_bytes"] + plan["draft"]["disk_bytes"]
        self.assertAlmostEqual(disk / 1e9, 166.9, places=1)
        self.assertAlmostEqual(plan["target"]["weight_bytes"] + plan["draft"]["weight_bytes"], disk + 6.3e9, delta=1e8)
        self.assertTrue(plan["fits"])
        text = self.succeed("plan", "-m", str(PLANS / "deepseek_v4_flash"), "--bandwidth", "400G").stdout
        self.assertRegex(text, r"weights [0-9.]+ GB on disk, [0-9.]+ GB in memory")

    def test_errors(self):
        model = str(PLANS / "qwen3_4b")
        self.assertIn("--memory: want a size", self.fail_with(1, "plan", "-m", model, "--memory", "12X"))
        wrong = str(PLANS / "dspark_qwen3_8b_block7")
        self.assertIn("not made for this target", self.fail_with(1, "plan", "-m", model, "--draft", wrong))


if __name__ == "__main__":
    unittest.main()
