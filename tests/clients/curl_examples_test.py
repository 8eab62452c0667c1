#!/usr/bin/env python3
"""The `curl` commands of README.md and docs/server.md, as they stand there, against a real server.

Only the address is replaced. Every answer must have status 200 and be what its content type says. Needs curl,
and no other packages.
"""

import json
import re
import shutil
import subprocess
import sys
import unittest

from client_case import SLOWDOWN, served_model
from serve_harness import ROOT, Server, Tool

PAGES = ("README.md", "docs/server.md")
WRITTEN_ADDRESS = "127.0.0.1:8080"
# Tells status and content type of every transfer on stderr.
CURL = "curl() { command curl -w '%{stderr}\\nHTTP %{http_code} %{content_type}\\n' \"$@\"; }\n"


def unfinished(command):
    """Whether the shell would ask for a further line."""
    if command.endswith("\\"):
        return True
    outside = re.sub(r"'[^']*'", "", command)
    return "'" in outside or len(re.findall(r'(?<!\\)"', outside)) % 2 == 1


def curl_commands(page):
    """The commands that begin with curl in the shell blocks of a page, with their further lines."""
    found = []
    for block in re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"),
                            re.DOTALL | re.MULTILINE):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("curl "):
                continue
            command = line
            while unfinished(command):
                command += "\n" + next(lines)
            found.append(command)
    return found


class CurlExamples(Tool):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model, drafter, _ = served_model(cls.chat_model)
        cls.server = Server("-m", model, "-d", drafter, "-c", "4096")
        cls.addClassCleanup(cls.server.stop)

    def run_command(self, command):
        """(content type, body) of the command's answer."""
        self.assertIn(WRITTEN_ADDRESS, command)
        script = CURL + command.replace(WRITTEN_ADDRESS, f"127.0.0.1:{self.server.port}")
        result = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=120 * SLOWDOWN, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        told = re.findall(r"^HTTP (\d+) ([^;\s]*)", result.stderr, re.MULTILINE)
        self.assertEqual([status for status, _ in told], ["200"], result.stdout[:500] + result.stderr)
        return told[0][1], result.stdout

    def check_stream(self, body):
        events = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
        self.assertGreater(len(events), 1)
        parsed = [json.loads(event) for event in events if event != "[DONE]"]
        self.assertFalse([event for event in parsed if "error" in event])
        last = "[DONE]" if events[-1] == "[DONE]" else parsed[-1]["type"]
        self.assertIn(last, ("[DONE]", "message_stop", "response.completed", "response.incomplete"))

    def test_examples(self):
        for page in PAGES:
            commands = curl_commands(page)
            self.assertTrue(commands, page)
            for command in commands:
                with self.subTest(page=page, command=command):
                    kind, body = self.run_command(command)
                    if kind == "text/event-stream":
                        self.check_stream(body)
                    elif kind == "application/json":
                        self.assertIsNone(json.loads(body).get("error"))
                    else:
                        self.assertEqual(kind, "text/plain")
                        self.assertTrue(body.strip())

    def test_every_path_has_an_example(self):
        table = re.search(r"^## Paths\n(.*?)^## ", (ROOT / "docs/server.md").read_text(encoding="utf-8"),
                          re.DOTALL | re.MULTILINE).group(1)
        wanted = {path for path in re.findall(r"`POST (/[\w/]+)`", table)} | {"/v1/models", "/metrics"}
        shown = "\n".join(curl_commands("docs/server.md"))
        missing = [path for path in sorted(wanted) if not re.search(re.escape(WRITTEN_ADDRESS + path) + r"(?![\w/])", shown)]
        self.assertEqual(missing, [])


if __name__ == "__main__":
    if shutil.which("curl") is None:
        print("curl examples: skipped: there is no curl", file=sys.stderr)
        sys.exit(77)
    unittest.main()
