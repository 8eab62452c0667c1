"""What the tests of the page share: a browser, looks at the page, and pictures of it.

Pictures go to the folder DSPARK_SCREENSHOTS, which CTest sets to screenshots/ in the build folder; without it to
build/screenshots.
"""

import os
import re
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "cli"))

import harness  # noqa: E402
import webdriver  # noqa: E402
from fake_server import FakeServer  # noqa: E402

SCREENSHOTS = Path(os.environ.get("DSPARK_SCREENSHOTS") or ROOT / "build" / "screenshots")
PNG = b"\x89PNG\r\n\x1a\n"
LAST_FACTS = """const n = document.querySelectorAll('.message.assistant').length;
const f = document.querySelectorAll('.message.assistant .facts');
return n === arguments[0] && f[n - 1].textContent;"""


def line_of(facts):
    """The line below an answer as numbers: {"tokens": 6, "tokens/s": 80.0, "drafted": 14, ...}."""
    out = {}
    for part in facts.split(" · "):
        if found := re.fullmatch(r"([\d.]+) (.+)", part):
            out[found.group(2)] = float(found.group(1))
        elif found := re.fullmatch(r"(\w+) (\d+)", part):
            out[found.group(1)] = float(found.group(2))
        else:
            out[part] = None
    return out


@unittest.skipUnless(webdriver.available(), "no chromium and chromedriver")  # see main()
class BrowserCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = webdriver.Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.browser.open("about:blank")  # what the page of the test before still said is not this one's
        self.browser.errors()

    def settle(self, **settings):
        """Sets fields of the settings; the names are their ids, with _ for -."""
        self.browser.run("for (const [id, v] of arguments[0]) { const n = document.getElementById(id); n.value = v;"
                         "n.dispatchEvent(new Event('change')); }",
                         [[name.replace("_", "-"), value] for name, value in settings.items()])
        self.addCleanup(self.browser.run, "localStorage.clear()")

    def slide(self, users):
        self.browser.run("const n = document.querySelector('#load'); n.value = arguments[0]; n.dispatchEvent(new Event('input'))",
                         users)

    def ask(self, text="Why?"):
        self.browser.type("#prompt", text)
        self.browser.key("enter")

    def facts(self, nth=1):
        """The line below the nth answer, when it has come."""
        return self.browser.wait("the line of the answer", LAST_FACTS, nth)

    def run_race(self, prompt="Why?"):
        """The verdict."""
        self.browser.run("document.querySelector('#prompt').value = arguments[0]", prompt)
        self.browser.click("#start-race")
        return self.browser.wait("the verdict", "const v = document.querySelector('#race-verdict').textContent;"
                                 "return !document.querySelector('#start-race').disabled && v !== 'running' && v")

    def titles(self, selector):
        return self.browser.run("return [...document.querySelectorAll(arguments[0])].map(n => n.querySelector('title').textContent)",
                                selector)

    def colour(self, selector, what="color"):
        return self.browser.run("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, what)

    def picture(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.browser.screenshot(path)
        data = path.read_bytes()
        self.assertTrue(data.startswith(PNG), path)
        self.assertGreater(len(data), 10000, f"{path}: nothing on it")


class FakeCase(BrowserCase):
    """Against a server that says what the test wants."""

    def setUp(self):
        super().setUp()
        self.server = FakeServer()
        self.addCleanup(self.server.reserved.close)
        self.addCleanup(self.server.close)

    def start(self):
        self.browser.open(self.server.url)
        self.browser.wait("the model list", "return document.querySelector('#model').value === 'tiny'")
        self.browser.wait("the look at the model", "return document.querySelector('#state').dataset.text || "
                          "!document.querySelector('#banner').hidden")


def main():
    """Runs the tests of the module; those that need a browser are skipped or missed as harness.require says."""
    result = unittest.main(module="__main__", exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    harness.require("chromium and chromedriver", webdriver.available())
