#!/usr/bin/env python3
"""Many clients, idle, mutated and leaving at random: nothing is lost, memory stays. Longer with DSPARK_SOAK_SECONDS."""

import contextlib
import http.client
import json
import os
import random
import resource
import socket
import threading
import time
import unittest
from pathlib import Path

import serve_harness
from serve_harness import Server, chat, chat_text, events, wait_until

SECONDS = float(os.environ.get("DSPARK_SOAK_SECONDS", "5"))


def memory_mb(server, what):
    """what: VmRSS, resident now; VmHWM, the most that was."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(what))


def forget_peak(server):
    """VmHWM begins anew with what is resident. Where the kernel does not let us, what loading took stays in it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5", encoding="ascii")


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place:place + rng.randrange(1, 20)]
        elif kind == 2:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
        else:
            data[place:place] = data[:rng.randrange(len(data))]
        if not data:
            data = bytearray(b"\r\n")
    return bytes(data)


class Soak(serve_harness.Tool):
    def start(self, *more):
        # What a sanitizer keeps of freed memory is not the server's.
        environment = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"}
        server = Server("-m", self.chat_model, "-c", "1024", "--parallel", "64", "--queue", "1000", "-d", "ngram", *more,
                        environment=environment)
        self.addCleanup(server.stop)
        self.prompt = chat("abcabc", max_tokens=60, ignore_eos=True)
        self.text = server.post("/v1/chat/completions", self.prompt).json["choices"][0]["message"]["content"]
        return server

    def drained(self, server):
        end = time.monotonic() + serve_harness.TIMEOUT
        while server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") > 0:
            self.assertLess(time.monotonic(), end, "requests are left over")
            time.sleep(0.05)
        # Pages that are remembered for later prompts do not count as used.
        self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0, "pages in use that nobody owns")
        self.assertEqual(server.get("/slots").json, [])

    def test_1000_idle_connections_and_64_streams(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
        server = self.start("--idle-timeout", "3600")
        body = {**self.prompt, "max_tokens": 950}
        whole = server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]
        forget_peak(server)
        before = memory_mb(server, "VmRSS")
        idle = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=serve_harness.TIMEOUT) for _ in range(1000)]
        for connection in idle:
            self.ask_on(connection)
        sockets = [connection.sock for connection in idle]
        texts, most = self.streams_at_once(server, {**body, "stream": True}, 64)
        grown = memory_mb(server, "VmHWM") - before
        self.assertEqual(texts, [whole] * 64)
        self.assertEqual(most, 64, "the streams did not run at the same time")
        self.assertLess(grown, 100, "at the peak, in MB")
        self.assertGreaterEqual(server.metric("dspark_http_connections"), 1000)
        for connection in idle:
            self.ask_on(connection)
        self.assertEqual([connection.sock for connection in idle], sockets)  # none was closed and opened again
        for connection in idle:
            connection.close()

    def ask_on(self, connection):
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        self.assertEqual(answer.status, 200)

    @staticmethod
    def streams_at_once(server, body, n):
        """The texts of n streams of the same body, and how many of them ran at the same time."""
        connections, texts, most = [server.connection() for _ in range(n)], [], 0
        for connection in connections:  # all are asked for before the first is read
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})

        def all_run_or_none_is_left():
            nonlocal most
            running = server.metric("vllm:num_requests_running")
            over = most > 0 and running == 0
            most = max(most, running)
            return over or most == n

        wait_until(all_run_or_none_is_left, "streams run")
        threads = [threading.Thread(target=lambda one=connection: texts.append(chat_text(events(one.getresponse()))))
                   for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
        return texts, most

    def test_mutated_requests(self):
        server = self.start("--header-timeout", "2", "--body-timeout", "2")
        body = json.dumps(self.prompt).encode()
        good = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)) + body
        rng = random.Random(1)
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) as link:
                link.sendall(mutate(rng, good))
                if rng.random() < 0.5:
                    link.shutdown(socket.SHUT_WR)
                    link.settimeout(serve_harness.TIMEOUT)
                    try:
                        got = link.recv(4096)
                        self.assertTrue(not got or got.startswith(b"HTTP/1.1 "), got[:100])
                    except ConnectionResetError:
                        pass
        answer = server.post("/v1/chat/completions", self.prompt).json
        self.assertEqual(answer["choices"][0]["message"]["content"], self.text)
        self.drained(server)

    def test_random_disconnects(self):
        server = self.start()
        wrong, stop_at = [], time.monotonic() + SECONDS

        def client(number):
            rng = random.Random(number)
            while time.monotonic() < stop_at:
                connection, response = server.open_stream("/v1/chat/completions", self.prompt)
                if rng.random() < 0.5:
                    response.read(rng.randrange(1, 4000))
                elif chat_text(events(response)) != self.text:
                    wrong.append(number)
                response.close()
                connection.close()

        def round_of_clients():
            threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        round_of_clients()
        before = memory_mb(server, "VmRSS")
        stop_at = time.monotonic() + SECONDS
        round_of_clients()
        self.drained(server)
        self.assertEqual(wrong, [])
        self.assertLess(memory_mb(server, "VmRSS") - before, 20)


if __name__ == "__main__":
    unittest.main()
