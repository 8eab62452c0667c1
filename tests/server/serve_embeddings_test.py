#!/usr/bin/env python3
"""`dspark serve`: requests for vectors that nobody waits for any more, that wait too long, or that a shutdown meets."""

import json
import socket
import threading
import unittest

import serve_harness
from serve_harness import Server, chat, wait_until

# Minutes of work, which nobody here waits for.
N_TEXTS, TEXT_TOKENS = 200, 16000
MUCH = {"input": [f"{i:05} " + "a" * (TEXT_TOKENS - 6) for i in range(N_TEXTS)]}


class Embeddings(serve_harness.Tool):
    def start(self, *arguments, parallel="1"):
        server = Server("-m", self.chat_model, "-c", "32768", "--parallel", parallel, *arguments)
        self.addCleanup(server.stop)
        return server

    def refused(self, answer, status, code):
        self.assertEqual(answer.status, status, answer.body[:500])
        self.assertEqual(answer.json["error"]["code"], code)
        self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)
        return answer.json["error"]["message"]

    def test_a_client_that_hangs_up_ends_them(self):
        server = self.start()
        data = json.dumps(MUCH).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) as link:
            link.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX-Request-Id: gone\r\nContent-Length: %d\r\n\r\n" %
                         len(data) + data)
            wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "the first one runs")
            (slot,) = server.get("/slots").json
            self.assertEqual((slot["request_id"], slot["choices"], slot["stream"]), ("gone", N_TEXTS, False))
        server.wait_idle()
        wait_until(lambda: server.log_line("id=gone "), "the log tells")
        self.assertIn("status=499", server.log_line("id=gone "))
        self.assertLess(server.metric("vllm:prompt_tokens_total"), N_TEXTS * TEXT_TOKENS)
        self.assertEqual(server.get("/slots").json, [])
        self.assertEqual(server.post("/v1/embeddings", {"input": "x"}).status, 200)

    def test_waiting_too_long(self):
        server = self.start("--queue-timeout", "0.2", "--stream-buffer", str(1 << 30))  # or it gives its place up
        connection, response = server.open_stream("/v1/chat/completions", chat("abc", max_tokens=30000, ignore_eos=True))
        response.readline()
        self.refused(server.post("/v1/embeddings", {"input": ["a", "b"]}), 429, "queue_timeout")
        response.close()
        connection.close()
        server.wait_idle()
        self.assertEqual(len(server.post("/v1/embeddings", {"input": ["a", "b"]}).json["data"]), 2)

    def test_more_texts_than_the_queue_holds(self):
        texts = [f"text {i} " + "a" * (i % 7) for i in range(100)]
        for parallel, queue in (("1", "3"), ("8", "3"), ("2", "1")):
            with self.subTest(parallel=parallel, queue=queue):
                server = self.start("--queue", queue, parallel=parallel)
                answer = server.post("/v1/embeddings", {"input": texts})
                self.assertEqual(answer.status, 200, answer.body[:500])
                data = answer.json["data"]
                self.assertEqual([entry["index"] for entry in data], list(range(len(texts))))
                for i in (0, 4, 50, 99):
                    (alone,) = server.post("/v1/embeddings", {"input": texts[i]}).json["data"]
                    self.assertEqual(data[i]["embedding"], alone["embedding"])
                server.stop()
        server = self.start("--queue", "3")
        error = server.post("/v1/embeddings", {"input": ["a"] * 2049})
        self.assertEqual((error.status, error.json["error"]["param"]), (400, "input"))

    def test_queue_that_others_fill(self):
        server = self.start("--queue", "1")
        connection, response = server.open_stream("/v1/chat/completions", chat("abc", max_tokens=30000, ignore_eos=True))
        response.readline()
        waiting = []
        thread = threading.Thread(
            target=lambda: waiting.append(server.post("/v1/chat/completions", chat("abc", max_tokens=1)).status))
        thread.start()
        wait_until(lambda: server.metric("vllm:num_requests_waiting") == 1, "the other one waits")
        error = server.post("/v1/embeddings", {"input": ["a", "b"]})
        self.assertEqual(error.status, 429, error.body[:500])
        self.assertIn("the queue is full", error.json["error"]["message"])
        self.assertGreaterEqual(int(error.headers["retry-after"]), 1)
        response.close()
        connection.close()
        thread.join()
        self.assertEqual(waiting, [200])
        server.wait_idle()
        self.assertEqual(len(server.post("/v1/embeddings", {"input": ["a", "b"]}).json["data"]), 2)

    def test_the_end_of_draining_cancels_them(self):
        server = self.start("--drain-seconds", "0.2")
        answers = []
        thread = threading.Thread(target=lambda: answers.append(server.post("/v1/embeddings", MUCH)))
        thread.start()
        wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "the first one runs")
        server.signal()
        thread.join()
        self.assertIn("shutting down", self.refused(answers[0], 503, "cancelled"))
        self.assertEqual(server.wait(), 0)


if __name__ == "__main__":
    unittest.main()
