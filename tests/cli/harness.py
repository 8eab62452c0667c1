"""Runs the program under test."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parent.parent.parent
# Limits of time are for a hang; under sanitizers everything takes longer (cmake/dspark.cmake).
SLOWDOWN = float(os.environ.get("DSPARK_TEST_SLOWDOWN", "1"))
BINARY = os.environ.get("DSPARK_BINARY") or str(ROOT / "build" / "release" / "dspark")


def require(what, is_there):
    """Ends a test that needs a tool which is not installed: failed where DSPARK_REQUIRE_TOOLS is 1, as it is in
    scripts/test, else with 77, which CTest reports as skipped."""
    if is_there:
        return
    required = os.environ.get("DSPARK_REQUIRE_TOOLS") == "1"
    print(f"{Path(sys.argv[0]).stem}: {'error' if required else 'skipped'}: no {what}; scripts/setup installs what is missing")
    sys.exit(1 if required else 77)


class Tool(unittest.TestCase):
    """A folder with a chat model and a base model, and calls of the program in it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.path = Path(cls.folder.name)
        cls.chat_model = str(cls.path / "chat.gguf")
        cls.base_model = str(cls.path / "base.gguf")
        write_tiny_model(cls.chat_model)
        write_tiny_model(cls.base_model, chat=False)

    def call(self, *arguments, stdin="", environment=None, binary=BINARY):
        clean = {key: value for key, value in os.environ.items() if key != "DSPARK_MODEL"}
        clean["XDG_CACHE_HOME"] = str(self.path / "cache")
        return subprocess.run([binary, *arguments], input=stdin, capture_output=True, text=True, timeout=120 * SLOWDOWN,
                              check=False, cwd=self.path, env={**clean, **(environment or {})})

    def succeed(self, *arguments, **options):
        result = self.call(*arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def fail_with(self, status, *arguments, **options):
        """The one error line of a call that must fail."""
        result = self.call(*arguments, **options)
        self.assertEqual(result.returncode, status, result.stderr)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("dspark: error: "), lines[0])
        self.assertEqual(result.stdout, "")
        return lines[0].removeprefix("dspark: error: ")
