"""The page in a real browser: against a server that says what the test wants. DSPARK_SCREENSHOTS=DIR keeps pictures."""

import os
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

import harness  # noqa: E402
import webdriver  # noqa: E402
from fake_server import PAGE, FakeServer  # noqa: E402

SAID = "The sky is <b> bl\u00fce."


class Files(unittest.TestCase):
    def test_nothing_from_outside(self):
        for file in PAGE.iterdir():
            if file.suffix in (".html", ".css", ".js"):
                found = re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}[^\s'\"]*", file.read_text())
                self.assertEqual([u for u in found if "www.w3.org" not in u], [], file.name)


@unittest.skipUnless(webdriver.available(), "no chromium and chromedriver")  # see the end of this file
class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = webdriver.Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.server = FakeServer()
        self.addCleanup(self.server.close)

    def start(self):
        self.browser.open(self.server.url)
        self.browser.wait("the model list", "return document.querySelector('#model').value === 'tiny'")
        self.browser.wait("the look at the model", "return document.querySelector('#state').dataset.text || "
                          "!document.querySelector('#banner').hidden")

    def ask(self, text="Why?"):
        self.browser.type("#prompt", text)
        self.browser.key("enter")

    def facts(self):
        return self.browser.wait("the answer's facts", "const f = document.querySelectorAll('.message.assistant .facts');"
                                 "return f.length && f[f.length - 1].textContent")

    def picture(self, name):
        folder = os.environ.get("DSPARK_SCREENSHOTS")
        if folder:
            self.browser.screenshot(Path(folder) / f"{name}.png")

    def test_an_answer_is_shaded_and_counted(self):
        self.start()
        self.ask()
        facts = self.facts()
        for part in ("6 tokens", "drafted 14", "verified 6", "trimmed 8", "accepted 3", "2.50 tokens per round"):
            self.assertIn(part, facts)
        self.assertEqual(self.browser.text(".message.assistant .body"), SAID)
        classes = self.browser.run("return [...document.querySelectorAll('.message.assistant .t')].map(n => n.className)")
        self.assertEqual(classes, ["t plain", "t accepted d1", "t accepted d2", "t accepted d4", "t correction", "t bonus"])
        self.browser.hover(".message.assistant .t.d2")
        tip = self.browser.text("#tip")
        for part in ("accepted draft", "place 2", "draft probability 0.50", "confidence 0.75", "the model's probability 0.90"):
            self.assertIn(part, tip)
        self.browser.hover(".message.assistant .t.correction")  # what is not known is not shown
        self.assertEqual(self.browser.text("#tip"), "correction: the draft was another")
        self.picture("answer")
        self.assertEqual(self.browser.errors(), [])

    def test_the_request_carries_conversation_and_settings(self):
        self.start()
        self.browser.click("#toggle-settings")
        self.browser.run("for (const [id, v] of arguments[0]) { const n = document.getElementById(id); n.value = v;"
                         "n.dispatchEvent(new Event('change')); }", [["seed", "7"], ["policy", "fixed:3"], ["system", "Be brief."]])
        self.ask("One")
        self.facts()
        self.ask("Two")
        self.browser.wait("two answers", "return document.querySelectorAll('.message.assistant .facts').length === 2 && "
                          "document.querySelector('#stop').disabled")
        sent = self.server.requests[-1]
        self.assertEqual([m["role"] for m in sent["messages"]], ["system", "user", "assistant", "user"])
        self.assertEqual(sent["messages"][2]["content"], SAID)
        self.assertEqual((sent["seed"], sent["speculation"], sent["stream"]), (7, {"policy": "fixed:3"}, True))
        self.start()  # settings outlive a reload
        self.assertEqual(self.browser.run("return document.querySelector('#seed').value"), "7")
        self.browser.run("localStorage.clear()")

    def test_stop_hangs_up_and_keeps_the_text(self):
        self.server.mode = "slow"
        self.start()
        self.ask()
        self.browser.wait("some text", "const b = document.querySelector('.message.assistant .body');"
                          "return b && b.textContent.length > 20")
        self.browser.key("escape")
        self.assertEqual(self.facts(), "stopped")
        self.assertTrue(self.server.hung_up.wait(20))
        self.assertTrue(self.browser.text(".message.assistant .body").startswith(SAID))
        self.assertFalse(self.browser.run("return document.querySelector('#send').disabled"))

    def test_errors_are_shown(self):
        self.server.mode = "refuse"
        self.start()
        self.ask()
        self.assertEqual(self.facts(), "the queue is full")
        self.server.mode = "cut"
        self.ask("Again")
        self.browser.wait("the second error", "return [...document.querySelectorAll('.facts.error')].some("
                          "n => n.textContent === 'the stream ended early')")
        self.picture("errors")

    def test_race(self):
        self.start()
        self.browser.type("#prompt", "Why?")
        self.browser.click("#start-race")
        verdict = self.browser.wait("the verdict", "const v = document.querySelector('#race-verdict').textContent;"
                                    "return v !== 'running' && v")
        self.assertTrue(verdict.startswith("texts identical"), verdict)
        self.assertEqual([r.get("speculation") for r in self.server.requests], [None, {"policy": "off"}])
        self.assertEqual(self.browser.text("#race-without"), SAID)
        self.picture("race")

    def test_race_has_speculation_on_one_side_whatever_the_settings_say(self):
        self.start()
        for policy, sent in (("off", None), ("fixed:3", {"policy": "fixed:3"})):
            self.browser.run("const n = document.querySelector('#policy'); n.value = arguments[0];"
                             "n.dispatchEvent(new Event('change'))", policy)
            self.browser.run("document.querySelector('#prompt').value = 'Why?'")
            self.browser.click("#start-race")
            self.browser.wait("the verdict", "const v = document.querySelector('#race-verdict').textContent;"
                              "return v !== 'running' && v")
            self.assertEqual([r.get("speculation") for r in self.server.requests[-2:]], [sent, {"policy": "off"}])
        self.browser.run("localStorage.clear()")

    def test_a_missing_drafter_is_loud(self):
        self.server.drafter = None
        self.start()
        self.assertTrue(self.browser.visible("#banner"))
        self.assertIn("without a drafter", self.browser.text("#banner"))

    def test_a_drafter_that_does_not_fit_is_loud_and_says_why(self):
        self.server.drafter, self.server.drafter_error = None, "x.gguf: 300 tokens, the target has 260"
        self.start()
        self.assertTrue(self.browser.visible("#banner"))
        self.assertIn("x.gguf: 300 tokens, the target has 260", self.browser.text("#banner"))
        self.picture("misfit")

    def test_live_panel(self):
        self.start()
        self.browser.wait("charts", "return document.querySelectorAll('#c-accept .bar').length === 3 && "
                          "document.querySelectorAll('#c-calib .dot').length === 3 && "
                          "document.querySelector('#c-cost .a') && Number(document.querySelector('#n-rate').textContent) > 0")
        self.browser.wait("a budget line", "const p = document.querySelector('#c-budget .a'); return p && p.getAttribute('d').includes('L')")
        self.assertEqual(self.browser.text("#n-running"), "2")
        radii = self.browser.run("return [...document.querySelectorAll('#c-calib .dot')].map(n => Number(n.getAttribute('r')))")
        self.assertLess(radii[1], radii[0])  # fewer drafts, smaller dots
        self.assertLess(radii[0], radii[2])
        self.assertIn("160 drafts", self.browser.run("return document.querySelectorAll('#c-calib .dot title')[2].textContent"))
        self.browser.run("const n = document.querySelector('#load'); n.value = 8; n.dispatchEvent(new Event('input'))")
        self.browser.wait("the load", "return document.querySelector('#load-note').textContent.startsWith('8 ')")
        self.assertEqual(self.server.users, 8)
        self.picture("live")
        self.browser.click("#toggle-theme")
        self.picture("theme")

    def test_phone(self):
        self.browser.phone(390, 844)
        self.addCleanup(self.browser.no_phone)
        self.start()
        self.assertEqual(self.browser.run("return innerWidth"), 390)
        self.browser.click("#toggle-settings")
        self.ask()
        self.facts()
        self.assertEqual(self.browser.run("return document.documentElement.scrollWidth"), 390)
        # Everything to touch lies inside and is large enough for a finger.
        boxes = self.browser.run("return [...document.querySelectorAll('button, input, select, textarea')].filter("
                                 "n => n.offsetParent).map(n => { const b = n.getBoundingClientRect();"
                                 "return [n.id, b.left, b.right, b.height]; })")
        self.assertGreater(len(boxes), 10)
        for name, left, right, height in boxes:
            self.assertGreaterEqual(left, 0, name)
            self.assertLessEqual(right, 390, name)
            self.assertGreaterEqual(height, 16 if name == "load" else 28, name)
        self.browser.tap(".message.assistant .t.d2")
        self.assertIn("draft probability 0.50", self.browser.text("#tip"))
        self.picture("phone")


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    harness.require("chromium and chromedriver", webdriver.available())
