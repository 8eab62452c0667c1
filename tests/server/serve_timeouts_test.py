#!/usr/bin/env python3
"""`dspark serve` with clients that are slow, idle or elsewhere: slow readers, timeouts, unix sockets."""

import http.client
import json
import os
import socket
import time
import unittest

import serve_harness
from serve_harness import Server, chat, chat_text, events, wait_until


def ask(server, request_id, max_tokens=60000, receive_buffer=None):
    """A connection that asks for a long stream, much more than sockets hold, and reads nothing yet."""
    body = json.dumps(chat("abcabcabc", max_tokens=max_tokens, ignore_eos=True, stream=True, logprobs=True,
                           top_logprobs=32)).encode()
    link = socket.socket()
    if receive_buffer:  # before connecting: the window stays small
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    link.settimeout(serve_harness.TIMEOUT)
    link.connect(("127.0.0.1", server.port))
    link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\nContent-Length: %d\r\n\r\n" %
                 (request_id.encode(), len(body)) + body)
    return link


def read_all(link):
    got = b""
    try:
        while piece := link.recv(1 << 16):
            got += piece
    except ConnectionResetError:
        pass
    return got


class SlowReaders(serve_harness.Tool):
    def start(self, *arguments):
        server = Server("-m", self.chat_model, "-c", "65536", "--parallel", "2", *arguments)
        self.addCleanup(server.stop)
        return server

    def ended_early(self, server, request_id):
        wait_until(lambda: server.metric("vllm:generation_tokens_total") > 0, "it began")
        wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "the answer is cancelled", 120)
        wait_until(lambda: server.log_line(f"id={request_id} "), "the log tells", 120)
        self.assertIn("status=499", server.log_line(f"id={request_id} "))
        self.assertLess(server.metric("vllm:generation_tokens_total"), 60000)

    def held(self, server, n=1):
        wait_until(lambda: server.metric("dspark_requests_held") == n, f"{n} wait for their readers", 120)

    @staticmethod
    def stream_of(link):
        """What a connection that asked for a stream reads to its end, as events."""
        response = http.client.HTTPResponse(link)
        response.begin()
        return events(response)

    def test_the_model_waits_for_a_slow_reader_and_nobody_else_does(self):
        server = self.start("--stream-buffer", "65536", "--write-timeout", "600")
        with ask(server, "slow", max_tokens=8000) as link:
            self.held(server)
            for _ in range(3):
                other = server.post("/v1/chat/completions", chat("x", max_tokens=5, ignore_eos=True))
                self.assertEqual(other.json["usage"]["completion_tokens"], 5)
            wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "the others are done, it is there")
            self.held(server)
            self.assertLess(server.metric("vllm:generation_tokens_total"), 8000)
            chunks = self.stream_of(link)
        self.assertEqual(chunks[-1], "[DONE]")
        whole = server.post("/v1/chat/completions", chat("abcabcabc", max_tokens=8000, ignore_eos=True)).json
        self.assertEqual(chat_text(chunks), whole["choices"][0]["message"]["content"])
        self.assertEqual(server.metric("dspark_requests_held"), 0)
        self.assertEqual(server.metric("vllm:num_preemptions_total"), 0)

    def test_an_engine_whose_requests_are_all_held_sleeps(self):
        server = self.start("--stream-buffer", "65536", "--write-timeout", "600")
        with ask(server, "one"), ask(server, "two"):
            # Not for a moment only, while a socket takes what waited.
            def sleeps():
                before = [server.metric(name) for name in ("dspark_steps_total", "dspark_idle_seconds_total")]
                held = server.metric("dspark_requests_held")
                after = [server.metric(name) for name in ("dspark_steps_total", "dspark_idle_seconds_total")]
                return held == 2 and after[0] == before[0] and after[1] > before[1]

            wait_until(sleeps, "the engine's thread has nothing to do", 120)
        # Who hangs up while its answer is held leaves at once.
        wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "both are cancelled")
        self.assertEqual(server.metric("dspark_requests_held"), 0)
        self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0)

    def test_a_reader_that_stopped_is_gone_after_the_write_timeout(self):
        for buffer in (1 << 16, 1 << 30):
            with self.subTest(buffer=buffer):
                server = self.start("--stream-buffer", str(buffer), "--write-timeout", "0.5")
                with ask(server, "stopped", receive_buffer=4096) as link:
                    self.ended_early(server, "stopped")
                    # The connection is closed from the other side; only this client's is left.
                    wait_until(lambda server=server: server.metric("dspark_http_busy_connections") == 1,
                               "the connection is closed")
                    # What was sent before can be read; the end of the stream is missing, so that the client notices.
                    got = read_all(link)
                self.assertTrue(got.startswith(b"HTTP/1.1 200 "), got[:100])
                self.assertNotIn(b"[DONE]", got)
                self.assertFalse(got.endswith(b"0\r\n\r\n"))
                self.assertEqual(server.metric("dspark_requests_held"), 0)

    def test_a_slow_reader_gets_all_while_the_server_drains(self):
        server = self.start("--stream-buffer", "65536", "--write-timeout", "600", "--drain-seconds", "240")
        with ask(server, "slow", max_tokens=8000) as link:
            self.held(server)
            server.signal()
            self.assertEqual(self.stream_of(link)[-1], "[DONE]")
        self.assertEqual(server.wait(), 0, server.log())
        self.assertNotIn("forced=1", server.log())

    def test_one_that_reads_nothing_does_not_keep_a_server_that_drains(self):
        server = self.start("--stream-buffer", "65536", "--write-timeout", "600", "--drain-seconds", "0.2")
        with ask(server, "stopped"):
            self.held(server)
            server.signal()
            self.assertEqual(server.wait(), 0, server.log())

    def test_a_slow_reader_within_its_buffer_gets_all(self):
        # Reading takes longer than the timeout, but the socket never stays full for so long.
        server = self.start("--stream-buffer", str(1 << 30), "--write-timeout", "6")
        with ask(server, "patient", max_tokens=8000) as link:
            wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "it runs")
            got = link.recv(1000)
            for _ in range(20):
                time.sleep(0.5)
                left = 1 << 19
                while left > 0:
                    piece = link.recv(left)
                    self.assertTrue(piece, "cut off")
                    left -= len(piece)
                    got = piece[-200:]
            while not got.endswith(b"0\r\n\r\n"):
                piece = link.recv(1 << 20)
                self.assertTrue(piece, got[-200:])
                got = got[-200:] + piece
        self.assertIn(b"data: [DONE]", got)


class Idle(serve_harness.Tool):
    def test_idle_connections_are_closed_without_a_word(self):
        server = Server("-m", self.chat_model, "--idle-timeout", "0.5")
        self.addCleanup(server.stop)
        with socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) as link:
            self.assertEqual(link.recv(100), b"")
        with socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) as link:
            link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            got = read_all(link)
        self.assertEqual(got.count(b"HTTP/1.1 "), 1, got)  # the answer, then nothing more
        self.assertIn(b" 200 ", got.split(b"\r\n")[0])
        self.assertEqual(server.log().count("event=request"), 1, server.log())
        # An answer in the making is not idle.
        body = chat("abc", max_tokens=1500, ignore_eos=True)
        self.assertEqual(server.post("/v1/chat/completions", body).json["usage"]["completion_tokens"], 1500)


class UnixSockets(serve_harness.Tool):
    def start(self, path):
        server = Server("-m", self.chat_model, "--unix-socket", path)
        self.addCleanup(server.stop)
        return server

    def test_answers_and_cleans_up(self):
        path = str(self.path / "answers.sock")
        server = self.start(path)
        self.assertEqual(server.get("/health").status, 200)
        answer = server.post("/v1/chat/completions", chat("x", max_tokens=3, ignore_eos=True))
        self.assertEqual(answer.json["usage"]["completion_tokens"], 3)
        wait_until(lambda: server.log_line("client=unix "), "the log names the client")
        self.assertIn("another server does", self.fail_with(1, "serve", "-m", self.chat_model, "--unix-socket", path))
        self.assertEqual(server.get("/health").status, 200)
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_what_a_dead_server_left_is_replaced(self):
        path = str(self.path / "left.sock")
        server = self.start(path)
        server.process.kill()
        server.wait()
        self.assertTrue(os.path.exists(path))
        self.assertEqual(self.start(path).get("/health").status, 200)

    def test_another_file_is_not_touched(self):
        path = self.path / "file"
        path.write_text("mine", encoding="utf-8")
        self.assertIn(str(path), self.fail_with(1, "serve", "-m", self.chat_model, "--unix-socket", str(path)))
        self.assertEqual(path.read_text(encoding="utf-8"), "mine")
        self.assertIn("cannot listen", self.fail_with(1, "serve", "-m", self.chat_model, "--unix-socket", "x" * 300))


if __name__ == "__main__":
    unittest.main()
