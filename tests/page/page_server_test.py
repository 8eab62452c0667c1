"""The page in a real browser against the program itself, with tiny models."""

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import page_case
import webdriver
from page_case import BrowserCase, line_of
from sure_pair import write_sure_pair
from tiny_drafter import write_tiny_drafter
from tiny_model import CHAT_TEMPLATE, write_tiny_model

# What passes of so many rows cost, in seconds: about what they do.
COSTS = [[1, 5e-5], [4, 5.3e-5], [8, 9.5e-5], [16, 1.9e-4], [32, 3.5e-4], [64, 8.2e-4]]
BINARY = os.environ.get("DSPARK_BINARY") or str(page_case.ROOT / "build" / "release" / "dspark")


def same(shown, value):
    """Whether a number of the page, of four digits, is that of the metrics."""
    return abs(float(shown) - value) <= 6e-4 * abs(value) + 1e-12


class Served(BrowserCase):
    cost_table = "none"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = str(Path(cls.folder.name) / "tiny.gguf")
        write_tiny_model(cls.model)
        cls.sure, cls.drafter = write_sure_pair(cls.folder.name)

    @classmethod
    def command(cls, model, *arguments):
        return [BINARY, "serve", "-m", model, "--port", "0", "--cost-table", cls.cost_table, *arguments]

    def serve(self, model, *arguments):
        log = Path(self.folder.name) / "server.log"
        with open(log, "wb") as errors:
            self.server = subprocess.Popen(self.command(model, *arguments), stdout=subprocess.PIPE, stderr=errors, text=True,
                                           cwd=self.folder.name)
        self.addCleanup(self.server.stdout.close)
        self.addCleanup(self.server.wait, 60 * webdriver.SLOWDOWN)
        self.addCleanup(self.server.terminate)
        line = self.server.stdout.readline()
        self.assertTrue(line.startswith("listening on http://"), f"{line}{log.read_text()}")
        self.url = line.split()[-1]
        self.browser.open(self.url + "/")

    def start(self, model, *arguments):
        self.serve(model, *arguments)
        self.browser.wait("the look at the model", "return document.querySelector('#state').dataset.text")

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60 * webdriver.SLOWDOWN) as answer:
            return answer.read().decode()

    def metrics(self):
        """{name: {labels without the model's: value}}"""
        out = {}
        for line in self.get("/metrics").splitlines():
            if found := re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line):
                labels = re.sub(r'model_name="[^"]*",?', "", found.group(2) or "")
                out.setdefault(found.group(1), {})[labels] = float(found.group(3))
        return out

    def by(self, metrics, name, label):
        """[(label as a number, value)] in order."""
        return sorted((int(re.search(rf'{label}="(\d+)"', labels).group(1)), value) for labels, value in metrics.get(name, {}).items())

    def counts(self):
        now = self.metrics()
        names = {"tokens": "vllm:generation_tokens_total", "rounds": "dspark_spec_decode_num_rounds_total",
                 "drafted": "dspark_spec_decode_num_drafted_tokens_total",
                 "verified": "dspark_spec_decode_num_verified_tokens_total",
                 "trimmed": "dspark_spec_decode_num_trimmed_tokens_total",
                 "accepted": "vllm:spec_decode_num_accepted_tokens_total"}
        return {key: sum(now[name].values()) for key, name in names.items()}

    def running(self):
        return sum(self.metrics()["vllm:num_requests_running"].values())

    def until(self, what, check):
        deadline = time.monotonic() + 60 * webdriver.SLOWDOWN
        while not check():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def until_idle(self):
        """No request, and the page has shown the numbers after the last one."""
        self.until("idle", lambda: self.get("/slots") == "[]" and self.running() == 0)
        self.browser.run("window.rate_then = document.querySelectorAll('#c-rate *')[0]")
        for _ in range(2):  # the second one was asked for after the first was drawn
            self.browser.wait("a new look at the metrics", "const n = document.querySelectorAll('#c-rate *')[0];"
                              "const is_new = n !== window.rate_then; window.rate_then = n; return is_new")

    def number(self, name):
        text = self.browser.text(f"#n-{name}")
        return float(text) if re.fullmatch(r"[\d.]+", text) else None


class Answers(Served):
    def test_the_line_says_what_the_server_counted(self):
        self.start(self.model, "-d", "ngram")
        self.assertFalse(self.browser.visible("#banner"))
        self.settle(max_tokens="48", policy="fixed:3")
        before = self.counts()
        self.ask("abc abc abc abc")
        line = line_of(self.facts())
        self.until_idle()
        counted = {key: value - before[key] for key, value in self.counts().items()}
        for key in ("tokens", "drafted", "verified", "trimmed", "accepted"):
            self.assertEqual(line[key], counted[key], key)
        self.assertEqual(line["drafted"], line["verified"] + line["trimmed"])
        self.assertLessEqual(line["accepted"], line["verified"])
        self.assertGreater(line["verified"], 0)
        self.assertAlmostEqual(line["tokens per round"], 1 + counted["accepted"] / counted["rounds"], delta=0.006)
        self.assertGreater(line["tokens/s"], 0)
        spans = self.browser.run("return [...document.querySelectorAll('.message.assistant .t')].map(n => [n.textContent, n.className])")
        self.assertEqual("".join(text for text, _ in spans), self.browser.text(".message.assistant .body"))
        self.assertEqual(len(spans), line["tokens"])
        self.assertEqual(sum("accepted" in kind for _, kind in spans), line["accepted"])
        self.assertEqual(self.browser.errors(), [])

    def test_race(self):
        self.start(self.sure, "-d", self.drafter)
        self.settle(max_tokens="200")
        verdict = self.run_race("abc")
        self.assertTrue(verdict.startswith("texts identical"), verdict)
        for lane in ("with", "without"):
            self.assertGreater(float(self.browser.text(f"#race-{lane}-speed").split()[0]), 0)

    def test_the_stop_button_frees_the_slot(self):
        self.start(self.sure, "-d", self.drafter, "-c", "60000", "-n", "1", "-t", "1")
        self.settle(max_tokens="59000", policy="off")
        self.ask("abc")
        self.browser.wait("some text", "return document.querySelectorAll('.message.assistant .t').length > 50")
        self.assertEqual((len(json.loads(self.get("/slots"))), self.running()), (1, 1))
        self.browser.click("#stop")
        line = line_of(self.facts())
        self.assertIn("stopped", line)
        self.until_idle()
        made = self.counts()["tokens"]
        self.assertGreaterEqual(made, line["tokens"])
        self.assertLess(made, 59000)
        text = self.browser.text(".message.assistant .body")
        self.settle(max_tokens="8")  # the only slot is there for the next answer
        self.ask("abc")
        self.assertEqual(line_of(self.facts(2))["tokens"], 8)
        self.assertEqual(self.browser.text(".message.assistant .body"), text)
        self.until_idle()
        self.assertEqual(self.counts()["tokens"], made + 8)

    def test_reasoning_stands_apart(self):
        model = str(Path(self.folder.name) / "thinker.gguf")
        # Answers begin within their reasoning, and never leave it.
        template = CHAT_TEMPLATE.replace("assistant\\n", "assistant\\n<think>\\n")
        self.assertNotEqual(template, CHAT_TEMPLATE)
        write_tiny_model(model, template=template)
        self.start(model, "-d", "ngram")
        self.assertTrue(json.loads(self.get("/props"))["has_reasoning"])
        self.settle(max_tokens="8")
        for nth in (1, 2):  # an empty answer in the conversation is none that the server refuses
            self.ask("abc")
            self.assertEqual(line_of(self.facts(nth))["tokens"], 8)
        parts = self.browser.run("return [...document.querySelectorAll('.message.assistant')].map(m => [m.querySelector('.body').textContent,"
                                 "m.querySelector('.thoughts').textContent,"
                                 "[...m.querySelectorAll('.thoughts .t')].map(t => t.textContent).join('')])")
        self.assertEqual(len(parts), 2)
        for said, thought, shaded in parts:
            self.assertEqual((said, shaded), ("", thought))
            self.assertGreater(len(thought), 0)
        self.assertEqual(self.browser.errors(), [])


class Panel(Served):
    """With a learned drafter that has a confidence head, and the adaptive policy."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cost_table = str(Path(cls.folder.name) / "costs.json")
        # A server that ends writes the table with everything that it must fit.
        server = subprocess.Popen(cls.command(cls.sure, *cls.arguments()), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        server.stdout.readline()
        server.terminate()
        server.wait(60 * webdriver.SLOWDOWN)
        server.stdout.close()
        table = json.loads(Path(cls.cost_table).read_text())
        table["verify"] = COSTS  # a machine that is busy may measure a size or two only
        Path(cls.cost_table).write_text(json.dumps(table))

    @classmethod
    def arguments(cls):
        return "-d", cls.drafter, "--simulated-load", "-n", "8"

    def start_learned(self):
        self.start(self.sure, *self.arguments())
        self.assertEqual(json.loads(self.get("/props"))["policy"], "adaptive")
        self.assertTrue(self.browser.text("#state").startswith("dspark"), self.browser.text("#state"))

    def draft_something(self):
        """Some rounds for certain, whatever pays on this machine, and some that the policy plans."""
        for nth, policy in enumerate(("fixed:3", ""), 1):
            self.settle(max_tokens="150", policy=policy)
            self.ask("abc")
            self.facts(nth)

    def check_costs(self, now):
        costs = self.by(now, "dspark_cost_verify_seconds", "rows")
        titles = self.titles("#c-cost .dot")
        self.assertEqual([rows for rows, _ in costs], [rows for rows, _ in COSTS])
        self.assertEqual(len(titles), len(costs))
        for title, (rows, seconds) in zip(titles, costs):
            shown = re.fullmatch(r"(\d+) rows?: (\S+) ms", title)
            self.assertEqual(int(shown.group(1)), rows)
            self.assertTrue(same(shown.group(2), seconds * 1000), (title, seconds))
        # The curve lies where the numbers say: left to right by rows, up by seconds, one scale for all.
        path = self.browser.run("return document.querySelector('#c-cost .a').getAttribute('d')")
        points = [tuple(map(float, point.split())) for point in re.findall(r"[\d.]+ [\d.]+", path)]
        right, left = points[-1][0], 38
        slowest = max(seconds for _, seconds in costs)
        for (x, y), (rows, seconds) in zip(points, costs, strict=True):
            self.assertAlmostEqual((x - left) / (right - left), rows / costs[-1][0], delta=0.001)
            self.assertAlmostEqual((96 - y) / 90, seconds / slowest / 1.1, delta=0.001)

    def check_reliability(self, now):
        bins = self.by(now, "dspark_calibration_bin_drafts", "bin")
        predicted = dict(self.by(now, "dspark_calibration_bin_predicted_survival", "bin"))
        observed = dict(self.by(now, "dspark_calibration_bin_observed_survival", "bin"))
        titles = self.titles("#c-calib .dot")
        self.assertGreater(len(bins), 0)
        self.assertEqual(len(titles), len(bins))
        places = self.browser.run("return [...document.querySelectorAll('#c-calib .dot')].map(n => Number(n.getAttribute('cy')))")
        for title, y, (place, n) in zip(titles, places, bins):
            shown = re.fullmatch(r"predicted (\S+), observed (\S+), (\d+) drafts", title)
            self.assertTrue(same(shown.group(1), predicted[place]) and same(shown.group(2), observed[place]), title)
            self.assertEqual(int(shown.group(3)), n)
            self.assertAlmostEqual((96 - y) / 90, observed[place], delta=0.001)

    def check_acceptance(self, now):
        accepted = self.by(now, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "position")
        verified = self.by(now, "dspark_spec_decode_num_verified_tokens_per_pos_total", "position")
        self.assertGreater(len(accepted), 0)
        self.assertEqual(self.titles("#c-accept .bar"), [f"place {place + 1}: {a:.0f} of {v:.0f} accepted"
                                                         for (place, a), (_, v) in zip(accepted, verified)])

    def check_plan(self, now):
        for shown, name in (("budget", "dspark_verify_budget"), ("draft", "dspark_draft_length")):
            self.assertEqual(self.number(shown), sum(now[name].values()), name)
        step = self.browser.text("#n-step")
        for shown, name in (("predicted", "dspark_step_predicted_seconds"), ("measured", "dspark_step_measured_seconds")):
            ms = re.search(rf"{shown} (\S+) ms", step).group(1)
            self.assertTrue(same(ms, 1000 * sum(now[name].values())), (step, now[name]))

    def test_charts_show_the_metrics(self):
        self.start_learned()
        self.draft_something()
        self.until_idle()
        now = self.metrics()
        self.assertGreater(sum(now["dspark_planned_steps_total"].values()), 0)
        self.check_costs(now)
        self.check_reliability(now)
        self.check_acceptance(now)
        self.check_plan(now)
        self.assertEqual(self.browser.errors(), [])

    def test_the_slider_moves_the_load(self):
        self.start_learned()
        self.assertEqual(self.number("running"), 0)
        planned = 0
        for users in (3, 6, 1):
            self.slide(users)
            self.browser.wait("the simulated users", "return document.querySelector('#load-note').textContent.startsWith(arguments[0] + ' ')",
                              users)
            self.assertEqual(self.browser.text("#load-value"), str(users))
            # Who finishes asks again a moment later: the numbers are there again and again, not at every look.
            self.until(f"{users} running", lambda users=users: self.running() == users)
            self.browser.wait(f"{users} running on the page",
                              "return document.querySelector('#n-running').textContent === String(arguments[0])", users)
            self.assertLessEqual(self.running(), users)
            # What the scheduler plans for them is shown, and goes on.
            self.browser.wait("the plan", "return ['rate', 'draft', 'budget'].every(n => /^\\d+$/.test(document.querySelector('#n-' + n).textContent))"
                              " && /^\\d+ %$/.test(document.querySelector('#n-paused').textContent)"
                              " && /L/.test(document.querySelector('#c-budget .a').getAttribute('d'))"
                              " && Number(document.querySelector('#n-rate').textContent) > 0")
            steps = sum(self.metrics()["dspark_planned_steps_total"].values())
            self.assertGreater(steps, planned)
            planned = steps
            if users == 6:
                self.draft_something()
                self.browser.resize(1200, 1250)
                self.browser.wait("the line to grow", "return document.querySelector('#c-rate .a').getAttribute('d').split('L').length > 4")
                self.picture("panel")
                self.browser.resize(1200, 900)
        self.slide(0)
        self.browser.wait("nobody", "return document.querySelector('#load-note').textContent === '' && "
                          "document.querySelector('#n-running').textContent === '0'")
        self.until_idle()
        self.check_plan(self.metrics())
        self.assertEqual(self.browser.errors(), [])


class Wrong(Served):
    def test_no_drafter_is_loud(self):
        self.start(self.model, "-d", "none")
        self.assertTrue(self.browser.visible("#banner"))
        self.assertIn("without a drafter", self.browser.text("#banner"))

    def test_a_drafter_that_does_not_fit_is_loud_and_says_why(self):
        misfit = write_tiny_drafter(Path(self.folder.name) / "misfit", vocab=300)
        self.start(self.model, "-d", misfit, "--drafter-optional")
        self.assertTrue(self.browser.visible("#banner [data-problem=drafter]"))
        why = json.loads(self.get("/props"))["drafter_error"]
        self.assertIn("300", why)
        self.assertEqual(self.browser.text("#banner"), f"No drafter, answers come at plain speed: {why}")
        self.settle(max_tokens="8")
        self.ask("abc")
        self.assertEqual(line_of(self.facts())["tokens"], 8)

    def test_a_load_that_is_not_allowed(self):
        self.start(self.model, "-d", "ngram")
        self.slide(3)
        note = self.browser.wait("the reason", "return document.querySelector('#load-note').textContent")
        self.assertIn("--simulated-load", note)
        self.assertEqual(self.browser.text("#load-value"), "0")

    def test_api_key(self):
        keys = Path(self.folder.name) / "keys"
        keys.write_text("secret\n")
        self.serve(self.model, "-d", "ngram", "--api-key-file", str(keys))
        self.browser.wait("the banner", "return document.querySelector('#banner').textContent.includes('wants an API key')")
        self.browser.type("#api-key", "secret")
        self.browser.key("enter")
        self.browser.wait("no banner", "return document.querySelector('#banner').hidden && document.querySelector('#state').dataset.text")
        self.settle(max_tokens="8")
        self.ask("abc")
        self.assertEqual(line_of(self.facts())["tokens"], 8)

    def test_a_server_that_stops(self):
        self.start(self.model, "-d", "ngram")
        self.server.terminate()
        self.server.wait(60 * webdriver.SLOWDOWN)
        self.browser.wait("the banner", "return document.querySelector('#banner').textContent.includes('does not answer')")


if __name__ == "__main__":
    page_case.main()
