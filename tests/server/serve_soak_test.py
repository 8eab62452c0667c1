#!/usr/bin/env python3
"""Many clients, idle, mutated and leaving at random: nothing is lost, memory stays. Longer with DSPARK_SOAK_SECONDS."""

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
from serve_harness import Server, chat, chat_text, events

SECONDS = float(os.environ.get("DSPARK_SOAK_SECONDS", "5"))


def resident_mb(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


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
        server = Server("-m", self.chat_model, "-c", "1024", "--parallel", "64", "--queue", "1000", "-d", "ngram", *more)
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
        server = self.start()
        before = resident_mb(server)
        idle = []
        for _ in range(1000):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=serve_harness.TIMEOUT)
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            idle.append(connection)
        texts, body = [], {**self.prompt, "max_tokens": 400}
        whole = server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]

        def stream():
            connection, response = server.open_stream("/v1/chat/completions", body)
            texts.append(chat_text(events(response)))
            connection.close()

        threads = [threading.Thread(target=stream) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = resident_mb(server) - before
        for connection in idle:
            connection.close()
        self.assertEqual(texts, [whole] * 64)
        self.assertLess(grown, 100)

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
        before = resident_mb(server)
        stop_at = time.monotonic() + SECONDS
        round_of_clients()
        self.drained(server)
        self.assertEqual(wrong, [])
        self.assertLess(resident_mb(server) - before, 20)


if __name__ == "__main__":
    unittest.main()
