#!/usr/bin/env python3
"""Clients that mean harm, and a well-behaved one beside them that must not notice: bytes that drip, bodies without end,
the requests of tests/data/http_malformed and mutations of them, every connection taken."""

import concurrent.futures
import contextlib
import json
import os
import random
import select
import socket
import struct
import threading
import time
import unittest

import serve_harness
from serve_harness import ROOT, SLOWDOWN, Server, chat, chat_text, events, wait_until
from serve_soak_test import mutate

CORPUS = sorted((ROOT / "tests" / "data" / "http_malformed").glob("*.http"))
BODY_LIMIT = 1 << 20
# Short, but long enough for a busy machine to do what has to be done before they are up.
TIMES = {"--header-timeout": 2, "--body-timeout": 2, "--idle-timeout": 4, "--write-timeout": 3}
LIMITS = [word for flag, seconds in TIMES.items() for word in (flag, str(seconds * SLOWDOWN))] + ["--max-body-mb", "1"]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def dial(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT)


def read_to_end(link):
    """What the other side sends until it closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := link.recv(1 << 16):
            got += piece
    return got


def status_of(got):
    """Of the first answer; "" when there is none."""
    return got[9:12].decode("latin-1") if got.startswith(b"HTTP/1.1 ") else ""


def good_request():
    body = json.dumps(chat("abc", max_tokens=4)).encode()
    return HEAD % len(body) + body


class Hostile(serve_harness.Tool):
    def start(self, *arguments):
        server = Server("-m", self.chat_model, "-c", "1024", "-d", "ngram", "--spec", "fixed:4", *LIMITS, *arguments)
        self.addCleanup(server.stop)
        return server

    def check_whole(self, server, n_files):
        """Nothing is left of those who are gone, and the server ends in order."""
        self.assertIsNone(server.process.poll(), server.log()[-2000:])
        server.wait_idle()
        wait_until(lambda: server.metric("dspark_http_connections") == 1, "all connections but the asking one are gone")
        wait_until(lambda: server.metric("dspark_http_busy_connections") == 1, "only the asking connection is busy")
        self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0, "pages in use that nobody owns")
        self.assertEqual(server.get("/slots").json, [])
        self.assertEqual(server.get("/health").status, 200)
        wait_until(lambda: self.open_files(server) <= n_files, "file descriptors are given back")
        self.assertEqual(server.stop(), 0, server.log()[-2000:])

    @staticmethod
    def open_files(server):
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))


class Corpus(Hostile):
    def answer(self, server, data, half_close):
        with dial(server) as link:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
                link.sendall(data)
                if half_close:
                    link.shutdown(socket.SHUT_WR)
            return read_to_end(link)

    def test_each_is_answered_and_the_connection_ends(self):
        self.assertGreaterEqual(len(CORPUS), 30)
        server = self.start()
        n_files = self.open_files(server)
        requests = {path.stem: path.read_bytes() for path in CORPUS}
        ended = {name: self.answer(server, data, True) for name, data in requests.items()}
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:  # these wait for the times to be up
            waited = dict(zip(requests, pool.map(lambda data: self.answer(server, data, False), requests.values())))
        for name in requests:
            wanted = name[:3]
            with self.subTest(request=name, then="the client sends no more"):
                # A client that hangs up behind a good request may lose its answer.
                self.assertIn(status_of(ended[name]), {wanted, "503"} if wanted == "200" else {wanted})
            with self.subTest(request=name, then="the client waits"):
                self.assertIn(status_of(waited[name]), {wanted, "408"})
        self.check_whole(server, n_files)

    def test_a_body_is_never_the_next_request(self):
        server = self.start()
        smuggled = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        for coding in (b"gzip", b"chunked, gzip", b"identity", b"xchunked", b"", b"\r\nTransfer-Encoding: gzip"):
            with self.subTest(coding=coding):
                head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
                got = self.answer(server, head + smuggled, True)
                self.assertEqual(got.count(b"HTTP/1.1 "), 1, got)
                self.assertEqual(status_of(got), "400")
        self.assertEqual(server.get("/health").status, 200)


class Victim:
    """Asks for streams, one after the other and each on a new connection, and compares them with those of quiet times."""

    def __init__(self, server, number):
        self.server = server
        self.body = chat(f"abc {number}", temperature=0.9, seed=number, max_tokens=60, ignore_eos=True, n=2)
        self.answers, self.wrong = 0, []
        self.text = self.ask()

    def ask(self):
        connection, response = self.server.open_stream("/v1/chat/completions", self.body)
        try:
            if response.status != 200:
                raise AssertionError(f"status {response.status}: {response.read()[:300]}")
            chunks = events(response)
            if chunks[-1] != "[DONE]":
                raise AssertionError(f"the stream ends with {chunks[-1]}")
            return [chat_text([{"choices": [choice]} for chunk in chunks[:-1] for choice in chunk["choices"]
                               if choice["index"] == index]).encode() for index in range(2)]
        finally:
            connection.close()

    def run(self, over):
        while not over.is_set():
            try:
                text = self.ask()
                if text != self.text:
                    self.wrong.append((text, self.text))
                self.answers += 1
            except (OSError, AssertionError, ValueError) as error:
                self.wrong.append(repr(error))


class Attack:
    """The attackers: each method runs on a thread of its own until `over`, and counts what it has done."""

    N_DRIPS = 48

    def __init__(self, server):
        self.server = server
        self.over = threading.Event()
        self.counts = dict.fromkeys(("dripped", "oversized", "malformed", "mutated", "reset"), 0)
        self.failures = []

    def guarded(self, attack):
        try:
            attack()
        except Exception as error:  # pylint: disable=broad-except  # an attacker that died attacks nobody
            self.failures.append(f"{attack.__name__}: {error!r}")
            self.over.set()

    def drip(self):
        """Keeps N_DRIPS connections busy: half of them with a header, half with a body, a byte at a time."""
        texts = (b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 1000, HEAD % 1000 + b"{" * 1000)
        links = {}
        with contextlib.ExitStack() as stack:
            def more(kind):
                link = stack.enter_context(dial(self.server))
                link.sendall(texts[kind][:40 if kind == 0 else len(HEAD % 1000) + 1])
                links[link] = kind

            for i in range(self.N_DRIPS):
                more(i % 2)
            while not self.over.is_set():
                readable = select.select(list(links), [], [], 0.2)[0]
                for link in list(links):
                    if link in readable:
                        got = read_to_end(link)
                        if status_of(got) != "408":
                            raise AssertionError(f"a slow client is told {got[:100]}")
                        self.counts["dripped"] += 1
                        link.close()
                        more(links.pop(link))
                    else:
                        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                            link.send(b"a")

    def oversize(self):
        """Bodies above the limit, with their length told and in chunks."""
        piece = b"x" * (1 << 15)
        chunked = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                   b"%x\r\n" % len(piece) + piece + b"\r\n")
        while not self.over.is_set():
            for head, part in ((HEAD % (3 * BODY_LIMIT), piece), chunked):
                with dial(self.server) as link:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        link.sendall(head)
                        for _ in range(2 * BODY_LIMIT // len(piece)):
                            link.sendall(part)
                    # A reset may take the answer away from one who goes on sending; it is one of these or nothing.
                    if status_of(read_to_end(link)) not in ("413", ""):
                        raise AssertionError("a body above the limit was taken")
                self.counts["oversized"] += 1
            time.sleep(0.05)

    def send_bytes(self, rng, data):
        """Then waits for an answer, or only for a moment, or leaves with a reset."""
        with dial(self.server) as link:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                link.sendall(data)
                manner = rng.randrange(3)
                if manner == 0:
                    link.shutdown(socket.SHUT_WR)
                    got = read_to_end(link)
                    if got and not got.startswith(b"HTTP/1.1 "):
                        raise AssertionError(f"no HTTP: {got[:100]}")
                elif manner == 1:
                    select.select([link], [], [], 0.05)
                else:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.counts["reset"] += 1

    def malformed(self):
        rng = random.Random(1)
        while not self.over.is_set():
            for path in CORPUS:
                self.send_bytes(rng, path.read_bytes())
                self.counts["malformed"] += 1

    def mutated(self):
        rng = random.Random(2)
        seeds = [data for data in (path.read_bytes() for path in CORPUS) if len(data) < 5000] + [good_request()] * 20
        while not self.over.is_set():
            self.send_bytes(rng, mutate(rng, rng.choice(seeds)))
            self.counts["mutated"] += 1

    def done(self):
        return (self.counts["dripped"] >= 2 * self.N_DRIPS and self.counts["oversized"] >= 8 and
                self.counts["malformed"] >= len(CORPUS) and self.counts["mutated"] >= 300 and self.counts["reset"] >= 50)


class UnderAttack(Hostile):
    def test_streams_beside_attackers_are_those_of_quiet_times(self):
        # Room for the drips, the other attackers, the victims and the probe, and some for connections that the
        # server has not yet seen to be closed.
        server = self.start("--parallel", "16", "--queue", "1000", "--max-connections", str(Attack.N_DRIPS + 24))
        victims = [Victim(server, number) for number in range(3)]
        self.assertEqual(len({victim.text[0] for victim in victims}), len(victims), "texts that tell nothing apart")
        server.wait_idle()
        n_files = self.open_files(server)
        attack = Attack(server)
        threads = [threading.Thread(target=attack.guarded, args=(one,))
                   for one in (attack.drip, attack.oversize, attack.malformed, attack.mutated)]
        threads += [threading.Thread(target=victim.run, args=(attack.over,)) for victim in victims]
        for thread in threads:
            thread.start()
        most = 0

        def fought_out():
            nonlocal most
            self.assertEqual(server.get("/health").status, 200)
            most = max(most, server.metric("dspark_http_connections"))
            return attack.over.is_set() or (attack.done() and min(victim.answers for victim in victims) >= 10)

        try:
            wait_until(fought_out, f"all attacks came: {attack.counts}", 200)
        finally:
            attack.over.set()
            for thread in threads:
                thread.join()
        self.assertEqual(attack.failures, [])
        for victim in victims:
            self.assertEqual(victim.wrong, [])
        self.assertGreaterEqual(most, Attack.N_DRIPS, "the slow clients were never all there")
        # Whoever finds all connections taken is told 503 before a path is known.
        self.assertEqual(server.metric("dspark_http_requests_total", handler="other", status="503"), 0)
        self.check_whole(server, n_files)


class Full(Hostile):
    """Every connection is taken by clients that do not get on: those who come are told so, one who is there is served,
    and when the times are up there is room again, though nobody left by himself."""

    LIMIT = 8
    GREETINGS = {
        "nothing is sent": (b"", ""),
        "headers that never end": (b"GET /health HTTP/1.1\r\nX-Slow: ", "408"),
        "bodies that never come": (HEAD % 1000 + b"{", "408"),
        "answers that nobody reads": (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400, "200"),
    }

    def refused(self, server):
        with contextlib.suppress(ConnectionResetError):
            with dial(server) as link:
                got = read_to_end(link)
                return status_of(got) == "503" and b"Retry-After: 1\r\n" in got
        return False

    def has_room(self, server):
        with contextlib.suppress(OSError, ValueError):
            with dial(server) as link:
                link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return status_of(read_to_end(link)) == "200"
        return False

    def test_room_again_after_the_times_are_up(self):
        for how, (greeting, wanted) in self.GREETINGS.items():
            with self.subTest(how):
                server = self.start("--max-connections", str(self.LIMIT), "--parallel", "2")
                n_files = self.open_files(server)
                body = json.dumps(chat("abc", max_tokens=30, ignore_eos=True)).encode()
                with contextlib.ExitStack() as stack:
                    present = stack.enter_context(contextlib.closing(server.connection()))
                    quiet = self.ask(present, body)
                    links = [stack.enter_context(dial(server)) for _ in range(self.LIMIT - 1)]
                    for link in links:
                        link.setblocking(False)
                        with contextlib.suppress(BlockingIOError):
                            link.send(greeting)
                        link.settimeout(serve_harness.TIMEOUT)
                    wait_until(lambda: self.refused(server), "all connections are taken")
                    self.assertEqual(self.ask(present, body), quiet)
                    wait_until(lambda: self.has_room(server), "room again")
                    for link in links:
                        self.assertEqual(status_of(read_to_end(link)), wanted)
                wait_until(lambda: self.has_room(server), "room again")
                self.check_whole(server, n_files)

    def ask(self, connection, body):
        connection.request("POST", "/v1/chat/completions", body)
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        return json.loads(answer.read())["choices"][0]["message"]["content"]


if __name__ == "__main__":
    unittest.main()
