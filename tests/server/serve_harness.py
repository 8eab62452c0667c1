"""Starts `dspark serve` on a tiny model and talks to it. Standard library only."""

import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cli"))

from harness import BINARY, SLOWDOWN, Tool  # noqa: E402

TIMEOUT = 60 * SLOWDOWN


def wait_until(check, what, seconds=60):
    end = time.monotonic() + seconds * SLOWDOWN
    while not check():
        if time.monotonic() > end:
            raise AssertionError("never came true: " + what)
        time.sleep(0.02)


class Server:
    """One running server. stop() ends it; leaving it open is an error of the test."""

    def __init__(self, *arguments, environment=None):
        self.unix_path = arguments[arguments.index("--unix-socket") + 1] if "--unix-socket" in arguments else None
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DSPARK_MODEL")}
        self.process = subprocess.Popen([BINARY, "serve", "--port", "0", *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
                                        env={**clean, **(environment or {})})
        self.lines, self.port = [], None
        ready = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self.reader.start()
        self.port = ready.get(timeout=TIMEOUT)
        if self.port is None:
            raise AssertionError("the server did not start:\n" + "".join(self.lines))

    def _read(self, ready):
        told = False
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"listening on (?:https?://[^\s:]+:(\d+)|unix:)", line)
            if found and not told:
                told = True
                ready.put(int(found.group(1) or 0))
        if not told:
            ready.put(None)

    def log(self):
        return "".join(self.lines)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        code = self.process.wait(timeout=TIMEOUT)
        self.reader.join(timeout=TIMEOUT)
        self.process.stdout.close()
        return code

    def stop(self):
        if self.process.poll() is None:
            self.signal()
        return self.wait()

    def connection(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        if self.unix_path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(TIMEOUT)
            connection.sock.connect(self.unix_path)
        return connection

    # One request, one connection.
    def request(self, method, path, body=None, headers=None):
        connection = self.connection()
        try:
            data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def open_stream(self, path, body, headers=None):
        """A connection whose answer is being streamed: (connection, response)."""
        connection = self.connection()
        connection.request("POST", path, json.dumps({**body, "stream": True}),
                           {"Content-Type": "application/json", **(headers or {})})
        return connection, connection.getresponse()

    def raw(self, data, wait=TIMEOUT):
        """Bytes as they are; everything that comes back until the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while piece := link.recv(65536):
                    got += piece
            except (ConnectionResetError, TimeoutError):
                pass
            return got

    def metric(self, name, headers=None, **labels):
        """Sum over the labels that are not given."""
        total = 0.0
        for line in self.get("/metrics", headers).body.decode().splitlines():
            if re.match(re.escape(name) + r"[ {]", line) and all(f'{key}="{value}"' in line
                                                                 for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_idle(self):
        """Returns when no request runs or waits, by the server's metrics."""
        wait_until(lambda: self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting") == 0, "idle")

    def log_line(self, words):
        """The line of the log with these words, or None."""
        return next((line for line in self.log().splitlines() if words in line), None)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {key.lower(): value for key, value in headers.items()}

    @property
    def json(self):
        return json.loads(self.body)


def events(response):
    """The data of a stream of server-sent events, JSON parsed; "[DONE]" as it is."""
    out = []
    for block in response.read().decode("utf-8").split("\n\n"):
        data = [line[5:].strip() for line in block.splitlines() if line.startswith("data:")]
        if data:
            out.append("[DONE]" if data == ["[DONE]"] else json.loads("\n".join(data)))
    return out


def chat(text, **fields):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


def chat_text(chunks):
    return "".join(choice["delta"].get("content") or "" for chunk in chunks if chunk != "[DONE]"
                   for choice in chunk["choices"])


class ServeCase(Tool):
    """A test case with one server for all its tests."""

    arguments = ("--parallel", "8", "-c", "2048", "-d", "ngram", "--spec", "fixed:4")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server("-m", cls.chat_model, *cls.arguments)
        cls.addClassCleanup(cls.server.stop)

    def run_text(self, prompt, *flags):
        """What `dspark run` says to the prompt."""
        return json.loads(self.succeed("run", "-m", self.chat_model, "-c", "2048", "--json", "-p", prompt,
                                       *flags).stdout)["text"]

    def error(self, answer, status, param=None):
        self.assertEqual(answer.status, status, answer.body[:500])
        error = answer.json["error"]
        self.assertTrue(error["message"])
        self.assertTrue(error["type"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        return error


def main():
    unittest.main()
