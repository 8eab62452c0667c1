#!/usr/bin/env python3
"""What tests/clients/run and client_case.py do when packages or the default model are missing: skipped or replaced where
that is allowed, failed where DSPARK_REQUIRE_TOOLS is 1. Needs neither the program nor a network.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIRED = {"DSPARK_REQUIRE_TOOLS": "1"}
OFFLINE = {**REQUIRED, "DSPARK_OFFLINE": "1"}


def environment(**more):
    clean = {key: value for key, value in os.environ.items()
             if key not in ("DSPARK_REQUIRE_TOOLS", "DSPARK_OFFLINE", "DSPARK_CLIENT_MODEL", "DSPARK_MODELS")}
    return {**clean, "PYTHONDONTWRITEBYTECODE": "1", **more}


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)


class Packages(Folder):
    """A copy of `run` in a folder of its own, with a python3 whose pip finds nothing."""

    def setUp(self):
        super().setUp()
        clients = self.path / "tests" / "clients"
        clients.mkdir(parents=True)
        for name in ("run", "requirements.txt"):
            shutil.copy(HERE / name, clients / name)
        (clients / "some_test.py").write_text("print('it ran')\n", encoding="utf-8")
        tools = self.path / "tools"
        tools.mkdir()
        python = tools / "python3"
        python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || {{ echo "ERROR: no such package"; exit 1; }}\n'
                          f'exec "{sys.executable}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        self.search = f"{tools}:{os.environ['PATH']}"

    def run_suite(self, **variables):
        return subprocess.run([str(self.path / "tests" / "clients" / "run"), "some"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False,
                              env=environment(PATH=self.search, **variables))

    def test_skipped_without_the_variable(self):
        result = self.run_suite()
        self.assertEqual(result.returncode, 77, result.stderr)
        self.assertIn("clients: skipped: pip cannot install", result.stderr)
        self.assertIn("no such package", result.stderr)

    def test_failed_where_they_are_required(self):
        result = self.run_suite(**REQUIRED)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("clients: error: pip cannot install", result.stderr)
        self.assertIn("DSPARK_OFFLINE=1", result.stderr)

    def test_skipped_where_there_is_no_network(self):
        self.assertEqual(self.run_suite(**OFFLINE).returncode, 77)

    def test_packages_that_are_there_are_used(self):
        installed = self.path / "build" / "client-packages"
        installed.mkdir(parents=True)
        shutil.copy(HERE / "requirements.txt", installed / "installed.txt")
        result = self.run_suite(**REQUIRED)
        self.assertEqual((result.returncode, result.stdout), (0, "it ran\n"), result.stderr)


class Model(Folder):
    def served(self, **variables):
        return subprocess.run([sys.executable, "-c", "import client_case; print(client_case.served_model('tiny.gguf'))"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, cwd=HERE,
                              env=environment(DSPARK_MODELS=str(self.path), **variables))

    def test_another_stands_in_and_it_is_said(self):
        for variables in ({}, OFFLINE):
            result = self.served(**variables)
            self.assertEqual(result.stdout, "('tiny.gguf', 'ngram', False)\n", result.stderr)
            self.assertIn("clients: note: the default model is not there", result.stderr)

    def test_failed_where_it_is_required(self):
        result = self.served(**REQUIRED)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("clients: the default model is not there", result.stderr)
        self.assertIn("scripts/fetch-models", result.stderr)

    def test_a_model_that_is_named_is_enough(self):
        for name, wanted in (("tiny", "('tiny.gguf', 'ngram', False)\n"), ("x.gguf", "('x.gguf', 'ngram', True)\n")):
            self.assertEqual(self.served(**REQUIRED, DSPARK_CLIENT_MODEL=name).stdout, wanted)

    def test_the_default_model_is_used_when_it_is_there(self):
        (self.path / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
        self.assertIn("dspark.gguf', True)", self.served(**REQUIRED).stdout)


if __name__ == "__main__":
    unittest.main()
