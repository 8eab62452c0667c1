#!/usr/bin/env python3
"""How `dspark serve` ends: what runs, what waits and what comes then, on SIGTERM and on Ctrl-C."""

import concurrent.futures
import signal
import unittest

import serve_harness
from serve_harness import Server, chat, events, wait_until

CHAT = "/v1/chat/completions"
LONG = chat("abcabcabc", max_tokens=60000, ignore_eos=True)


class Shutdown(serve_harness.Tool):
    def start(self, *more):
        server = Server("-m", self.chat_model, "-c", "16384", *more)
        self.addCleanup(server.stop)
        return server

    def assert_cancelled(self, answer):
        self.assertEqual(answer.status, 503, answer.body[:500])
        self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)
        self.assertEqual(answer.json["error"]["code"], "cancelled")
        self.assertIn("shutting down", answer.json["error"]["message"])

    def test_idle_server_leaves_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start()
            server.signal(number)
            self.assertEqual(server.wait(), 0, server.log())

    def test_streams_finish_and_nothing_new_starts(self):
        server = self.start("--drain-seconds", "60")
        connection, response = server.open_stream(CHAT, {**LONG, "max_tokens": 3000})
        response.read(100)
        server.signal()
        wait_until(lambda: server.get("/health").status == 503, "health says so")
        refused = server.post(CHAT, chat("hello", max_tokens=1))
        self.assertEqual(refused.status, 503)
        self.assertIn("retry-after", refused.headers)
        chunks = response.read().decode()
        self.assertTrue(chunks.endswith("data: [DONE]\n\n"), chunks[-200:])
        connection.close()
        self.assertEqual(server.wait(), 0, server.log())

    def test_streams_are_cancelled_after_the_drain_time(self):
        server = self.start("--drain-seconds", "0.2")
        connection, response = server.open_stream(CHAT, {**LONG, "max_tokens": 15000})
        response.read(100)
        server.signal()
        rest = response.read().decode()
        connection.close()
        self.assertIn('"error"', rest)
        self.assertNotIn("[DONE]", rest)
        self.assertEqual(server.wait(), 0)

    def test_a_whole_answer_is_cancelled_after_the_drain_time(self):
        server = self.start("--drain-seconds", "0.2")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.post, CHAT, {**LONG, "max_tokens": 15000})
            wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "it runs")
            server.signal()
            self.assert_cancelled(asked.result())
        self.assertEqual(server.wait(), 0)

    def test_what_still_waits_is_cancelled_after_the_drain_time(self):
        server = self.start("--drain-seconds", "0.2", "--parallel", "1", "--stream-buffer", str(1 << 30))
        body = {**LONG, "max_tokens": 15000}
        connection, response = server.open_stream(CHAT, body)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            # A stream that has not begun has a status, as other answers have.
            asked = [pool.submit(server.post, CHAT, {**body, "stream": stream}) for stream in (False, True)]
            wait_until(lambda: server.metric("vllm:num_requests_waiting") == 2, "they wait")
            server.signal()
            for one in asked:
                self.assert_cancelled(one.result())
        self.assertIn('"error"', response.read().decode())
        connection.close()
        self.assertEqual(server.wait(), 0)

    def test_a_stream_whose_prompt_is_being_read_is_refused_with_a_status(self):
        server = self.start("-c", "65536", "--drain-seconds", "0")
        before = server.metric("dspark_steps_total")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.post, CHAT, chat("x" * 40000, max_tokens=2, stream=True))
            wait_until(lambda: server.metric("dspark_steps_total") >= before + 3, "pieces of the prompt are read")
            server.signal()
            self.assert_cancelled(asked.result())
        self.assertEqual(server.wait(), 0)

    def test_what_waits_is_answered_within_the_drain_time(self):
        server = self.start("--drain-seconds", "120", "--parallel", "1")
        connection, response = server.open_stream(CHAT, {**LONG, "max_tokens": 3000})
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.post, CHAT, chat("abc", max_tokens=5, ignore_eos=True))
            wait_until(lambda: server.metric("vllm:num_requests_waiting") == 1, "it waits")
            server.signal()
            self.assertEqual(events(response)[-1], "[DONE]")
            self.assertEqual(asked.result().json["usage"]["completion_tokens"], 5)
        connection.close()
        self.assertEqual(server.wait(), 0)

    def test_ctrl_c_under_load(self):
        """Four answers run and four wait: all are given."""
        server = self.start("--drain-seconds", "240", "--parallel", "4")
        body = {**LONG, "max_tokens": 3000}

        def ask(number):
            if number % 2:
                return server.post(CHAT, body).json["usage"]["completion_tokens"]
            connection, response = server.open_stream(CHAT, {**body, "stream_options": {"include_usage": True}})
            chunks = events(response)
            connection.close()
            return chunks[-2]["usage"]["completion_tokens"] if chunks[-1] == "[DONE]" else chunks[-1]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(8)]
            for state in ("running", "waiting"):
                wait_until(lambda name=f"vllm:num_requests_{state}": server.metric(name) == 4, f"four are {state}")
            server.signal(signal.SIGINT)
            self.assertEqual([one.result() for one in asked], [3000] * 8)
        self.assertEqual(server.wait(), 0, server.log())
        self.assertIn("event=drain", server.log())
        self.assertNotIn("forced=1", server.log())

    def test_second_signal_leaves_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start("--drain-seconds", "600")
            connection, response = server.open_stream(CHAT, {**LONG, "max_tokens": 15000})
            response.read(100)
            server.signal(number)
            wait_until(lambda: server.get("/health").status == 503, "health says so")
            server.signal(number)
            self.assertEqual(server.wait(), 130)
            self.assertIn("event=stop forced=1", server.log())
            connection.close()


if __name__ == "__main__":
    unittest.main()
