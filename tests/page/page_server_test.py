"""The page in a real browser against the program itself, with a tiny model."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))

import harness  # noqa: E402
import webdriver  # noqa: E402
from tiny_model import write_tiny_model  # noqa: E402

BINARY = os.environ.get("DSPARK_BINARY") or str(HERE.parent.parent / "build" / "release" / "dspark")


class Served(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = str(Path(cls.folder.name) / "tiny.gguf")
        write_tiny_model(cls.model)
        cls.browser = webdriver.Browser()
        cls.addClassCleanup(cls.browser.close)

    def serve(self, *arguments):
        server = subprocess.Popen([BINARY, "serve", "-m", self.model, "--port", "0", "--cost-table", "none", *arguments],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.folder.name)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait, 60)
        self.addCleanup(server.terminate)
        line = server.stdout.readline()
        self.assertTrue(line.startswith("listening on http://"), line)
        self.browser.open(line.split()[-1] + "/")
        self.browser.wait("the look at the model", "return document.querySelector('#state').dataset.text")

    def settle(self, settings):
        self.browser.run("for (const [id, v] of arguments[0]) { const n = document.getElementById(id); n.value = v;"
                         "n.dispatchEvent(new Event('change')); }", settings)

    def picture(self, name):
        folder = os.environ.get("DSPARK_SCREENSHOTS")
        if folder:
            self.browser.screenshot(Path(folder) / f"{name}.png")

    def test_answers_races_and_load(self):
        self.serve("-d", "ngram", "--simulated-load")
        self.assertFalse(self.browser.visible("#banner"))
        self.settle([["max-tokens", "48"], ["policy", "fixed:3"]])
        self.browser.type("#prompt", "abc abc abc abc")
        self.browser.key("enter")
        facts = self.browser.wait("the facts", "const f = document.querySelector('.message.assistant .facts'); return f && f.textContent")
        self.assertRegex(facts, r"^\d+ tokens")
        self.assertIn("accepted", facts)
        spans = self.browser.run("return [...document.querySelectorAll('.message.assistant .t')].map(n => n.textContent).join('')")
        self.assertEqual(spans, self.browser.text(".message.assistant .body"))
        self.assertNotEqual(spans, "")
        self.browser.type("#prompt", "abc abc abc abc")
        self.browser.click("#start-race")
        verdict = self.browser.wait("the verdict", "const v = document.querySelector('#race-verdict').textContent;"
                                    "return v !== 'running' && v")
        self.assertTrue(verdict.startswith("texts identical"), verdict)
        self.browser.run("const n = document.querySelector('#load'); n.value = 3; n.dispatchEvent(new Event('input'))")
        self.browser.wait("the simulated users", "return document.querySelector('#load-note').textContent.startsWith('3 ')")
        self.browser.wait("their tokens", "return Number(document.querySelector('#n-rate').textContent) > 0")
        self.browser.wait("acceptance by place", "return document.querySelectorAll('#c-accept .bar').length > 0")
        self.picture("served")
        self.assertEqual(self.browser.errors(), [])

    def test_no_drafter_is_loud(self):
        self.serve("-d", "none")
        self.assertTrue(self.browser.visible("#banner"))
        self.assertIn("without a drafter", self.browser.text("#banner"))


if __name__ == "__main__":
    harness.require("chromium and chromedriver", webdriver.available())
    unittest.main()
