#!/usr/bin/env python3
"""scripts/lint with a pretended clang-tidy; the real one is only asked which checks it would run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "lint"
CLANG_TIDY = """#!/bin/sh
echo "$PWD $*" >>"$LINT_LOG"
for file; do :; done
case "$file" in
  *main.cc)
    echo "$file:3:5: warning: something is odd [bugprone-something]"
    echo "  int odd;"
    echo "/src/base/status.h:7:1: warning: in a header [performance-something]" ;;
  *app.cc) echo "/src/base/status.h:7:1: warning: in a header [performance-something]" ;;
  *report.cc) echo "no such flag" >&2; exit 1 ;;
esac
"""


class Lint(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        self.bin = self.path / "bin"
        self.bin.mkdir()
        (self.bin / "clang-tidy").write_text(CLANG_TIDY)
        (self.bin / "clang-tidy").chmod(0o755)
        self.build = self.path / "build"
        self.build.mkdir()
        files = ["src/cli/main.cc", "src/cli/app.cc", "src/cli/nearest.cc", "tests/cli/nearest_test.cc"]
        entries = [{"directory": str(self.build), "file": str(ROOT / file), "command": "c++"} for file in files]
        (self.build / "compile_commands.json").write_text(json.dumps([*entries, entries[0]]))

    def lint(self, *arguments, path=None):
        environment = {**os.environ, "PATH": path or f"{self.bin}:{os.environ['PATH']}",
                       "LINT_LOG": str(self.path / "log")}
        return subprocess.run([sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True,
                              check=False, cwd=self.path)

    def calls(self):
        return sorted((self.path / "log").read_text().splitlines())

    def test_all_files_of_src_each_once_and_findings_each_once(self):
        result = self.lint("-p", str(self.build))
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "lint: 3 file(s), 2 finding(s)\n")
        self.assertIn("main.cc:3:5: warning: something is odd [bugprone-something]\n  int odd;\n", result.stdout)
        self.assertEqual(result.stdout.count("in a header"), 1)
        calls = self.calls()
        self.assertEqual(len(calls), 3)
        for call in calls:  # below the root, where .clang-tidy is
            self.assertTrue(call.startswith(f"{ROOT} --quiet -p {self.build.resolve()} "), call)

    def test_named_files(self):
        result = self.lint("-p", str(self.build), str(ROOT / "src/cli/nearest.cc"))
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertEqual(result.stderr, "lint: 1 file(s), 0 finding(s)\n")
        self.assertEqual(len(self.calls()), 1)

    def test_a_file_that_cannot_be_read_is_a_finding(self):
        result = self.lint("-p", str(self.build), str(ROOT / "src/cli/report.cc"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("report.cc:1:1: error: clang-tidy ended with status 1\nno such flag", result.stdout)

    def test_what_is_missing_is_named(self):
        result = self.lint("-p", str(self.build), path=str(self.path))
        self.assertEqual((result.returncode, result.stderr),
                         (2, "lint: error: clang-tidy is not installed: apt-get install clang-tidy\n"))
        result = self.lint("-p", str(self.path))
        self.assertEqual(result.returncode, 2)
        self.assertIn("compile_commands.json; scripts/build release makes it", result.stderr)

    @unittest.skipUnless(shutil.which("clang-tidy"), "no clang-tidy")
    def test_the_checks_are_those_of_this_project(self):
        result = subprocess.run(["clang-tidy", "--dump-config", "src/cli/main.cc", "--"], cwd=ROOT, capture_output=True,
                                text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("-*,bugprone-*,performance-*", "readability-identifier-naming.PrivateMemberSuffix"):
            self.assertIn(part, result.stdout)


if __name__ == "__main__":
    unittest.main()
