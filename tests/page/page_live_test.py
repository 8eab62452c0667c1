"""The live panel and what the page says when something is wrong; against a server that says what the test wants."""

import re

import page_case
from page_case import FakeCase


class Panel(FakeCase):
    def number(self, name):
        return self.browser.text(f"#n-{name}")

    def test_charts(self):
        self.start()
        self.browser.wait("charts", "return document.querySelectorAll('#c-accept .bar').length === 3 && "
                          "document.querySelectorAll('#c-calib .dot').length === 3 && "
                          "document.querySelector('#c-cost .a') && Number(document.querySelector('#n-rate').textContent) > 0")
        self.assertEqual((self.number("running"), self.number("waiting")), ("2", "1"))
        radii = self.browser.run("return [...document.querySelectorAll('#c-calib .dot')].map(n => Number(n.getAttribute('r')))")
        self.assertLess(radii[1], radii[0])  # fewer drafts, smaller dots
        self.assertLess(radii[0], radii[2])
        self.assertEqual(self.titles("#c-calib .dot")[2], "predicted 0.925, observed 0.915, 160 drafts")
        self.assertEqual(self.titles("#c-cost .dot"), ["1 row: 2.3 ms", "4 rows: 3.2 ms", "8 rows: 4.4 ms"])
        scale = self.browser.run("return [...document.querySelectorAll('#c-cost text')].map(n => n.textContent)")
        self.assertEqual(scale, ["0", "4.84", "0 rows", "8 rows"])  # a tenth above the slowest
        self.assertEqual(self.titles("#c-accept .bar"), [f"place {i + 1}: {30 - 10 * i} of 40 accepted" for i in range(3)])
        self.assertIn("predicted 4 ms, measured 5 ms", self.number("step"))
        self.assertIn("1.25 times", self.number("step"))
        self.assertEqual(self.browser.errors(), [])

    def test_budget_is_the_budget(self):
        """Plans, not what was verified: that is 3 drafts a round here."""
        self.start()
        self.browser.wait("a mean of the budget", "const n = document.querySelector('#c-budget .b title');"
                          "return n && n.textContent === 'mean of the last second: 7'")
        self.assertEqual(self.titles("#c-budget .a"), ["newest planned step: 11"])
        self.assertEqual((self.number("budget"), self.number("draft")), ("11", "4"))
        self.assertEqual((self.number("verified"), self.number("paused")), ("3.0", "40 %"))
        self.assertIn("Verify budget", self.browser.run("return document.querySelector('#c-budget').closest('figure').textContent"))
        self.server.budget = 23
        self.browser.wait("the new budget", "return document.querySelector('#n-budget').textContent === '23' && "
                          "document.querySelector('#c-budget .a title').textContent === 'newest planned step: 23'")
        # The line goes up to it: 23 of a scale that ends a tenth above.
        heights = self.browser.run("return document.querySelector('#c-budget .a').getAttribute('d').match(/[\\d.]+ [\\d.]+/g)"
                                   ".map(p => Number(p.split(' ')[1]))")
        self.assertAlmostEqual((96 - heights[-1]) / 90, 1 / 1.1, delta=0.01)
        self.assertAlmostEqual((96 - heights[0]) / (96 - heights[-1]), 11 / 23, delta=0.01)

    def test_what_was_not_planned_has_no_budget(self):
        self.server.plans = False
        self.start()
        self.browser.wait("the panel", "return document.querySelector('#n-running').textContent === '2'")
        self.assertEqual((self.number("budget"), self.number("draft"), self.number("paused")), ("–", "–", "–"))
        self.assertIn("no step was planned", self.browser.text("#c-budget"))
        self.assertFalse(self.browser.visible("#c-budget .a"))

    def test_the_slider_asks_for_users_who_leave_with_the_page(self):
        self.start()
        self.slide(8)
        self.browser.wait("the load", "return document.querySelector('#load-note').textContent.startsWith('8 ')")
        self.assertEqual(self.server.users, 8)
        self.start()
        self.browser.wait("the panel", "return document.querySelector('#n-running').textContent === '2'")
        self.assertEqual(self.server.users, 0)


class Wrong(FakeCase):
    def banner(self, problem):
        return self.browser.wait(f"the banner about {problem}", "const n = document.querySelector('#banner [data-problem=' + arguments[0] + ']');"
                                 "return n && !n.parentNode.hidden && n.parentNode.getAttribute('role') === 'alert' && n.textContent", problem)

    def no_banner(self):
        self.browser.wait("no banner", "return document.querySelector('#banner').hidden")

    def test_answers_that_fail(self):
        self.server.mode = "refuse"
        self.start()
        self.ask()
        self.assertEqual(self.facts(), "the queue is full")
        self.server.mode = "cut"
        self.ask("Again")
        self.assertEqual(self.facts(2), "the stream ended early")
        self.server.mode = "broken"
        self.ask("Once more")
        self.assertEqual(self.facts(3), "the connection was lost before the answer ended")
        self.assertEqual(self.browser.run("return document.querySelectorAll('.facts.error').length"), 3)
        self.picture("errors")

    def test_a_missing_drafter_is_loud(self):
        self.server.drafter = None
        self.start()
        self.assertIn("without a drafter", self.banner("drafter"))

    def test_a_drafter_that_does_not_fit_is_loud_and_says_why(self):
        self.server.drafter, self.server.drafter_error = None, "x.gguf: 300 tokens, the target has 260"
        self.start()
        self.assertIn("x.gguf: 300 tokens, the target has 260", self.banner("drafter"))

    def test_a_missing_api_key_is_asked_for(self):
        self.server.key = "secret"
        self.browser.open(self.server.url)
        self.assertIn("wants an API key", self.banner("key"))
        # The field stands open and has the keyboard.
        self.assertTrue(self.browser.visible("#api-key"))
        self.assertEqual(self.browser.run("return document.activeElement.id"), "api-key")
        self.assertEqual(self.browser.run("return document.querySelector('#toggle-settings').getAttribute('aria-expanded')"), "true")
        self.ask()
        self.assertIn("wants an API key", self.facts())
        self.picture("api-key")
        self.assertEqual(self.browser.run("return document.querySelectorAll('.facts.error').length"), 1)

        self.browser.type("#api-key", "wrong")
        self.browser.key("enter")
        self.browser.wait("the refusal", "return document.querySelector('#banner').textContent.includes('refuses this API key')")
        self.assertTrue(self.browser.text("#state").startswith("API key"))
        self.browser.run("document.querySelector('#api-key').value = ''")
        self.browser.type("#api-key", "secret")
        self.browser.key("enter")
        self.no_banner()
        self.browser.wait("the model list", "return document.querySelector('#model').value === 'tiny'")
        self.assertEqual(self.browser.text("#state"), "dspark, adaptive")
        self.ask()
        self.assertTrue(self.facts(2).startswith("6 tokens"))
        self.slide(2)
        self.browser.wait("the load", "return document.querySelector('#load-note').textContent.startsWith('2 ')")

    def test_a_server_that_is_gone_and_comes_back(self):
        self.start()
        self.browser.wait("numbers", "return document.querySelector('#n-running').textContent === '2'")
        self.server.close()
        text = self.banner("server")
        self.assertIn(f"127.0.0.1:{self.server.port} does not answer", text)
        self.assertIn("keeps trying", text)
        self.assertEqual(self.browser.text("#state"), "not reachable")
        self.assertTrue(self.browser.visible("#live-error"))
        self.assertEqual(self.browser.text("#n-running"), "–")  # old numbers are no news
        self.assertFalse(self.browser.visible("#c-accept .bar"))
        self.ask()
        self.assertIn("does not answer", self.facts())
        self.picture("unreachable")
        self.server.drafter = {"kind": "other"}  # another server may be there now
        self.server.open()
        self.no_banner()
        self.browser.wait("the new look", "return document.querySelector('#state').textContent === 'other, adaptive'")
        self.browser.wait("numbers", "return document.querySelector('#n-running').textContent === '2'")
        self.assertFalse(self.browser.visible("#live-error"))
        self.ask()
        self.assertTrue(self.facts(2).startswith("6 tokens"))

    def test_metrics_that_fail_touch_the_panel_only(self):
        self.server.metrics_status, self.server.metrics_text = 503, "no"
        self.start()
        why = self.browser.wait("the note", "const n = document.querySelector('#live-error'); return !n.hidden && n.textContent")
        self.assertRegex(why, r"^No live numbers, /metrics fails: 503 ")
        self.assertIn("Answers are not touched", why)
        self.assertFalse(self.browser.visible("#banner"))
        self.assertEqual(self.browser.text("#state"), "dspark, adaptive")
        self.assertIn("no numbers", self.browser.text("#c-cost"))
        self.ask()
        self.assertTrue(self.facts().startswith("6 tokens"))
        self.server.metrics_status, self.server.metrics_text = 200, "<html>a proxy's page</html>"
        self.browser.wait("the other reason", "return document.querySelector('#live-error').textContent.includes('no list of metrics')")
        self.server.metrics_text = None
        self.browser.wait("numbers", "return document.querySelector('#n-running').textContent === '2' && "
                          "document.querySelector('#live-error').hidden")
        self.assertTrue(re.fullmatch(r"\d+", self.browser.text("#n-budget")))


if __name__ == "__main__":
    page_case.main()
