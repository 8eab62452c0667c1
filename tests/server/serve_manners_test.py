#!/usr/bin/env python3
"""`dspark serve` with clients that behave badly, and what it lets whom do."""

import contextlib
import http.client
import json
import re
import socket
import threading
import unittest

import serve_harness
from serve_harness import Server, ServeCase, chat, wait_until

LONG = chat("abcabcabc", max_tokens=60000, ignore_eos=True)


class BadClients(ServeCase):
    arguments = ("--parallel", "2", "-c", "65536")

    def healthy(self):
        answer = self.server.post("/v1/chat/completions", chat("hello", max_tokens=3, ignore_eos=True))
        self.assertEqual(answer.status, 200)

    def idle(self):
        return self.server.metric("vllm:num_requests_running") + self.server.metric("vllm:num_requests_waiting") == 0

    def test_malformed_bytes(self):
        for data, wanted in ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b" 400 "), (b"hello\r\n\r\n", b" 400 "),
                             (b"GET\r\n\r\n", b" 400 "), (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b" 400 "),
                             (b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", b" 400 "),
                             (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
                             (b"GET / HTTP/1.1\r\nX: " + b"a" * 200000 + b"\r\n\r\n", b" 431 "),
                             (b"GET /health HTTP/1.1\r\nX-Request-Id: a b\r\n\r\n", b" 200 ")):
            got = self.server.raw(data)
            self.assertIn(wanted, got.split(b"\r\n")[0] + b" ", data[:40])
        self.healthy()

    def test_large_bodies(self):
        body = b'{"messages": "' + b"x" * (20 << 20) + b'"}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.assertIn(b" 413 ", self.server.raw(head + body).split(b"\r\n")[0])
        self.healthy()

    def test_hang_up_while_streaming(self):
        connection, response = self.server.open_stream("/v1/chat/completions", LONG)
        response.read(200)
        before = self.server.metric("vllm:generation_tokens_total")
        connection.sock.close() if connection.sock else None
        response.close()
        connection.close()
        wait_until(self.idle, "the stream's request ends")
        self.assertLess(self.server.metric("vllm:generation_tokens_total") - before, 60000)
        self.assertGreaterEqual(self.server.metric("vllm:request_success_total", finished_reason="abort"), 1)
        self.assertEqual(self.server.metric("vllm:request_success_total", finished_reason="cancelled"), 0)
        self.healthy()

    def test_hang_up_while_waiting_for_a_whole_answer(self):
        data = json.dumps(LONG).encode()
        with socket.create_connection(("127.0.0.1", self.server.port)) as link:
            link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) +
                         data)
            wait_until(lambda: not self.idle(), "the request runs")
        wait_until(self.idle, "the request ends")
        wait_until(lambda: "status=499" in self.server.log(), "the log tells")

    def test_keep_alive_and_pipelining(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=serve_harness.TIMEOUT)
        for _ in range(3):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat("hello", max_tokens=2)))
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            answer.read()
        connection.close()
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        got = self.server.raw(one * 3 + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual(got.count(b"HTTP/1.1 200"), 4, got)

    def test_http_1_0_stream_ends_with_the_connection(self):
        data = json.dumps({**chat("hello", max_tokens=4, ignore_eos=True), "stream": True}).encode()
        got = None
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=serve_harness.TIMEOUT) as link:
            link.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            got = b""
            while piece := link.recv(65536):
                got += piece
        self.assertNotIn(b"chunked", got.lower().split(b"\r\n\r\n")[0])
        self.assertTrue(got.endswith(b"data: [DONE]\n\n"), got[-100:])

    def test_many_idle_connections(self):
        links = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(200)]
        try:
            self.healthy()
        finally:
            for link in links:
                link.close()

    def test_request_ids_and_log(self):
        answer = self.server.request("GET", "/health", headers={"X-Request-Id": "my-id_1.2"})
        self.assertEqual(answer.headers["x-request-id"], "my-id_1.2")
        wait_until(lambda: "my-id_1.2" in self.server.log(), "the log line")
        line = next(line for line in self.server.log().splitlines() if "my-id_1.2" in line)
        for word in ("path=/health", "status=200", "method=GET"):
            self.assertIn(word, line)


class Log(ServeCase):
    """What the line of a request tells of its answer."""

    def line(self, path, body, name, streamed=False):
        """(answer or None, words of the line as a dictionary)"""
        headers, answer = {"X-Request-Id": name}, None
        if streamed:
            connection, response = self.server.open_stream(path, body, headers)
            answer = serve_harness.events(response)
            connection.close()
        else:
            answer = self.server.post(path, body, headers).json
        wait_until(lambda: self.server.log_line(f"id={name} "), "the log tells of " + name)
        told = dict(word.split("=", 1) for word in self.server.log_line(f"id={name} ").split() if "=" in word)
        self.assertEqual((told["path"], told["method"], told["event"]), (path, "POST", "request"))
        return answer, told

    def check_answer(self, told, prompt_tokens, output_tokens, report):
        (model,) = (entry["id"] for entry in self.server.get("/v1/models").json["data"])
        self.assertEqual((told["status"], told["model"]), ("200", model))
        self.assertEqual((int(told["prompt_tokens"]), int(told["output_tokens"])), (prompt_tokens, output_tokens))
        self.assertEqual([int(told[key]) for key in ("drafted", "verified", "accepted")],
                         [report[key] for key in ("drafted", "verified", "accepted")])
        self.assertRegex(told["ttft_s"], r"^\d+\.\d{4}$")
        self.assertGreaterEqual(float(told["seconds"]) + 0.001, float(told["ttft_s"]))

    def test_answers(self):
        body = chat("abcabcabcabc", max_tokens=48, ignore_eos=True, n=2)
        answer, told = self.line("/v1/chat/completions", body, "log-whole")
        usage = answer["usage"]
        self.assertEqual(usage["completion_tokens"], 96)
        self.assertGreater(usage["speculation"]["accepted"], 0)
        self.check_answer(told, usage["prompt_tokens"], 96, usage["speculation"])
        chunks, told = self.line("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}, "log-stream", True)
        usage = chunks[-2]["usage"]
        self.check_answer(told, usage["prompt_tokens"], 96, usage["speculation"])
        answer, told = self.line("/v1/completions", {"prompt": ["abcabc", "x"], "max_tokens": 9, "ignore_eos": True}, "log-texts")
        self.check_answer(told, answer["usage"]["prompt_tokens"], 18, answer["usage"]["speculation"])
        answer, told = self.line("/v1/responses", {"input": "abcabc", "max_output_tokens": 9, "ignore_eos": True}, "log-responses")
        self.check_answer(told, answer["usage"]["input_tokens"], 9, answer["usage"]["speculation"])
        messages = {"messages": [{"role": "user", "content": "abcabc"}], "max_tokens": 9, "ignore_eos": True}
        answer, told = self.line("/v1/messages", messages, "log-messages")
        usage = answer["usage"]
        self.check_answer(told, usage["input_tokens"] + usage["cache_read_input_tokens"], 9, usage["speculation"])

    def test_vectors_and_refusals(self):
        answer, told = self.line("/v1/embeddings", {"input": ["ab", "abc"]}, "log-vectors")
        self.assertEqual((told["status"], told["model"], int(told["prompt_tokens"])),
                         ("200", answer["model"], answer["usage"]["prompt_tokens"]))
        _, refused = self.line("/v1/chat/completions", {"messages": []}, "log-refused")
        self.assertEqual(refused["status"], "400")
        for word in ("ttft_s", "output_tokens", "drafted", "verified", "accepted"):
            self.assertNotIn(word, told)
            self.assertNotIn(word, refused)
        self.assertNotIn("model", refused)


class Slow(serve_harness.Tool):
    def test_slowloris(self):
        server = Server("-m", self.chat_model, "--header-timeout", "0.5", "--body-timeout", "0.5")
        self.addCleanup(server.stop)
        links = [socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) for _ in range(20)]
        for link in links:
            link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        answer = server.post("/v1/chat/completions", chat("hello", max_tokens=2))
        self.assertEqual(answer.status, 200)
        for link in links:
            got = link.recv(1000)
            self.assertIn(b" 408 ", got)
            self.assertRegex(got, rb"\r\nRetry-After: [1-9]")
            link.close()
        with socket.create_connection(("127.0.0.1", server.port), timeout=serve_harness.TIMEOUT) as link:
            link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            self.assertIn(b" 408 ", link.recv(1000))


class Refused(serve_harness.Tool):
    """Requests that are not handed on: each has an id, a line in the log and its place in the metrics."""

    @staticmethod
    def head(size, more=b"", path=b"/v1/chat/completions"):
        return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size + more + b"\r\n"

    def check(self, server, got, status, known_id=None, line=(), handler="/v1/chat/completions"):
        head = got.split(b"\r\n\r\n")[0].decode()
        self.assertTrue(head.startswith(f"HTTP/1.1 {status} "), head)
        found = re.search(r"^X-Request-Id: (\S+)\r?$", head, re.MULTILINE)
        self.assertIsNotNone(found, head)
        if known_id is not None:
            self.assertEqual(found.group(1), known_id)
        wait_until(lambda: server.log_line(f"id={found.group(1)} "), f"a line about the {status}")
        told = server.log_line(f"id={found.group(1)} ")
        for word in ("event=request", f"status={status}", "client=", *line):
            self.assertIn(word, told)
        self.assertNotIn("bytes=0 ", told)
        self.assertGreaterEqual(server.metric("dspark_http_requests_total", handler=handler, status=status), 1)

    def test_what_cannot_be_read(self):
        server = Server("-m", self.chat_model, "--header-timeout", "0.5", "--body-timeout", "0.5", "--max-body-mb", "1")
        self.addCleanup(server.stop)
        self.check(server, server.raw(b"hello\r\n\r\n"), 400, line=("method=- path=-", "client=127.0.0.1"), handler="other")
        self.check(server, server.raw(b"GET /health HTTP/1.1\r\nbad header\r\n\r\n"), 400, handler="/health",
                   line=("method=GET path=/health",))
        self.check(server, server.raw(b"GET /health HTTP/1.1\r\nX: " + b"a" * 200000 + b"\r\n\r\n"), 431,
                   handler="/health", line=("method=GET path=/health",))
        self.check(server, server.raw(self.head(2 << 20, b"X-Request-Id: body\r\n") + b" " * (2 << 20)), 413, "body",
                   ("method=POST path=/v1/chat/completions",))
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as link:
            link.sendall(self.head(100, b"X-Request-Id: slow-body\r\n") + b"{")
            self.check(server, link.recv(4000), 408, "slow-body", ("path=/v1/chat/completions",))
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as link:
            link.sendall(b"GET /health HTT")
            self.check(server, link.recv(4000), 408, line=("method=",), handler="other")

    def test_what_is_not_let_in(self):
        server = Server("-m", self.chat_model, "--rate-limit", "1", environment={"DSPARK_API_KEY": "secret"})
        self.addCleanup(server.stop)
        self.check(server, server.raw(self.head(0, b"X-Request-Id: no-key\r\n")), 401, "no-key", ("client=none",))
        key = b"Authorization: Bearer secret\r\n"
        first = server.post("/v1/chat/completions", chat("hello", max_tokens=1), {"X-Api-Key": "secret"})
        self.assertEqual(first.status, 200, first.body)
        got = server.raw(self.head(0, key + b"X-Request-Id: too-many\r\n"))
        self.check(server, got, 429, "too-many", ("client=key0",))

    def test_while_it_shuts_down(self):
        server = Server("-m", self.chat_model, "-c", "65536", "--drain-seconds", "600")
        connection, response = server.open_stream("/v1/chat/completions", LONG)
        response.read(100)
        server.signal()
        wait_until(lambda: server.get("/health").status == 503, "health says so")
        self.check(server, server.raw(self.head(0, b"X-Request-Id: late\r\n")), 503, "late")
        connection.close()
        response.close()
        self.assertEqual(server.wait(), 0)

    def test_too_many_connections(self):
        server = Server("-m", self.chat_model, "--max-connections", "8")
        self.addCleanup(server.stop)

        def has_room():
            with contextlib.suppress(OSError, http.client.HTTPException):
                return server.get("/health").status == 200

        with contextlib.ExitStack() as stack:
            for _ in range(8):
                link = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
                link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertIn(b" 200 ", link.recv(4000))
            got = b""
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one_more:
                with contextlib.suppress(ConnectionResetError):
                    while piece := one_more.recv(4000):
                        got += piece
            self.assertIn(b"Retry-After: 1\r\n", got)
            self.assertIn(b"too many connections", got)
        wait_until(has_room, "room again")
        self.check(server, got, 503, line=("method=- path=-", "client=127.0.0.1"), handler="other")


class Limits(serve_harness.Tool):
    def test_keys(self):
        keys = self.path / "keys.txt"
        keys.write_text("# clients\nfirst-key\nsecond-key\n")
        server = Server("-m", self.chat_model, "--api-key-file", str(keys), environment={"DSPARK_API_KEY": "from-env"})
        self.addCleanup(server.stop)
        body = chat("hello", max_tokens=2)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer first-ke"},
                        {"Authorization": "first-key"}, {"Authorization": "Bearer first-key2"}):
            answer = server.post("/v1/chat/completions", body, headers)
            self.assertEqual(answer.status, 401, headers)
            self.assertEqual(answer.json["error"]["code"], "invalid_api_key")
        for headers in ({"Authorization": "Bearer first-key"}, {"authorization": "bearer second-key"},
                        {"x-api-key": "from-env"}):
            self.assertEqual(server.post("/v1/chat/completions", body, headers).status, 200, headers)
        self.assertEqual(server.get("/health").status, 200)
        self.assertEqual(server.get("/v1/models").status, 401)
        self.assertNotIn("first-key", server.log())

    def test_rate_limit_and_cors(self):
        server = Server("-m", self.chat_model, "--rate-limit", "3", "--cors-origin", "https://example.org")
        self.addCleanup(server.stop)
        answers = [server.post("/v1/chat/completions", chat("hello", max_tokens=1)) for _ in range(6)]
        self.assertEqual(answers[0].status, 200)
        limited = [answer for answer in answers if answer.status == 429]
        self.assertGreater(len(limited), 0)
        self.assertGreaterEqual(int(limited[0].headers["retry-after"]), 1)
        self.assertEqual(answers[0].headers["access-control-allow-origin"], "https://example.org")
        before = server.request("OPTIONS", "/v1/chat/completions")
        self.assertEqual(before.status, 204)
        for name in ("authorization", "content-type", "x-api-key", "anthropic-version", "anthropic-beta"):
            self.assertIn(name, before.headers["access-control-allow-headers"].lower())
        # What the clients of OpenAI and Anthropic ask for in a browser, as the browser lists it.
        asked = ("anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,authorization,content-type,x-api-key,"
                 "x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,"
                 "x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout")
        preflight = server.request("OPTIONS", "/v1/messages", headers={
            "Origin": "https://example.org", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked})
        self.assertEqual(preflight.status, 204)
        self.assertEqual(preflight.headers["access-control-allow-headers"], asked)
        for odd in ("x" * 5000, "a\"b", "x-a: y"):
            answer = server.request("OPTIONS", "/v1/messages", headers={"Access-Control-Request-Headers": odd})
            self.assertEqual(answer.headers["access-control-allow-headers"], before.headers["access-control-allow-headers"])

    def status(self, server, headers=None):
        return server.post("/v1/chat/completions", chat("hello", max_tokens=1), headers).status

    def limited(self, *arguments, environment=None):
        """A server where every client may ask once."""
        server = Server("-m", self.chat_model, "--rate-limit", "0.01", *arguments, environment=environment)
        self.addCleanup(server.stop)
        return server

    def test_every_key_has_a_bucket_of_its_own(self):
        keys = self.path / "two-keys.txt"
        keys.write_text("key-a\nkey-b\n", encoding="utf-8")
        server = self.limited("--api-key-file", str(keys))
        asked = [self.status(server, {"Authorization": "Bearer key-" + name}) for name in "aabb"]
        self.assertEqual(asked, [200, 429, 200, 429])
        self.assertEqual(self.status(server, {"X-Api-Key": "key-a"}), 429)  # the same client

    def test_clients_of_a_trusted_proxy_have_buckets_of_their_own(self):
        server = self.limited("--trusted-proxy", "10.0.0.1", "--trusted-proxy", "127.0.0.1")
        for forwarded, status in (
                ("203.0.113.1", 200), ("203.0.113.1", 429), ("203.0.113.2", 200), ("203.0.113.2", 429),
                ("198.51.100.7, 203.0.113.1", 429),  # the client says what it likes before the proxy's entry
                ("203.0.113.1, 203.0.113.3", 200), ("2001:db8::1", 200), ("2001:DB8:0::1", 429),
                # The proxy itself is the client where the header names none.
                ("unknown", 200), (None, 429), ("203.0.113.4:80", 429), ("203.0.113.5,", 429), ("", 429)):
            with self.subTest(forwarded=forwarded):
                self.assertEqual(self.status(server, {} if forwarded is None else {"X-Forwarded-For": forwarded}), status)
        body = json.dumps(chat("hello", max_tokens=1)).encode()
        head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
                b"X-Forwarded-For: 203.0.113.6\r\nX-Forwarded-For: %s\r\n\r\n")
        self.assertIn(b" 429 ", server.raw(head % (len(body), b"203.0.113.1") + body).split(b"\r\n")[0])
        self.assertEqual(self.status(server, {"X-Forwarded-For": "203.0.113.6"}), 200)
        wait_until(lambda: server.log_line("client=2001:db8::1 "), "the log names the client")

    def test_others_cannot_name_a_client(self):
        for arguments in ((), ("--trusted-proxy", "10.0.0.1"), ("--trusted-proxy", "unix")):
            server = self.limited(*arguments)
            asked = [self.status(server, {"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(2)]
            self.assertEqual(asked, [200, 429], arguments)
            self.assertNotIn("203.0.113", server.log())

    def test_clients_behind_a_unix_socket(self):
        server = self.limited("--unix-socket", str(self.path / "proxied.sock"), "--trusted-proxy", "unix")
        asked = [self.status(server, {"X-Forwarded-For": f"203.0.113.{number}"}) for number in (1, 1, 2)]
        self.assertEqual(asked, [200, 429, 200])

    def test_full_queue(self):
        server = Server("-m", self.chat_model, "--parallel", "1", "--queue", "1", "-c", "16384")
        self.addCleanup(server.stop)
        # One runs; of three more at the same time one may wait.
        streams = [server.open_stream("/v1/chat/completions", LONG)]
        wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "it runs")
        results = []
        threads = [threading.Thread(target=lambda: results.append(server.post("/v1/chat/completions", LONG)))
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        for connection, response in streams:
            response.read()
            connection.close()
        for thread in threads:
            thread.join()
        statuses = sorted(answer.status for answer in results)
        self.assertIn(429, statuses)
        self.assertIn(200, statuses)
        for answer in results:
            if answer.status == 429:
                self.assertIn("retry-after", answer.headers)

    def test_several_models(self):
        server = Server("-m", f"one={self.chat_model}", "-m", f"two={self.base_model}")
        self.addCleanup(server.stop)
        listed = server.get("/v1/models").json["data"]
        self.assertEqual([model["id"] for model in listed], ["one", "two"])
        for model in listed:
            self.assertEqual(server.get("/v1/models/" + model["id"]).json, model)
        self.assertEqual(server.get("/v1/models/t%77o").json["id"], "two")
        missing = server.get("/v1/models/thr%22ee")
        self.assertEqual(missing.status, 404)
        error = missing.json["error"]
        self.assertEqual((error["type"], error["param"], error["code"]), ("invalid_request_error", "model", "model_not_found"))
        self.assertIn('thr"ee', error["message"])
        self.assertEqual(server.post("/v1/models/one", {}).status, 405)
        body = {"prompt": "hello", "max_tokens": 3}
        for name in ("one", "two"):
            answer = server.post("/v1/completions", {**body, "model": name})
            self.assertEqual(answer.json["model"], name)
        self.assertEqual(server.post("/v1/completions", {**body, "model": "three"}).status, 404)
        self.assertEqual(server.post("/v1/chat/completions", chat("x", model="two")).status, 400)


class Usage(serve_harness.Tool):
    def test_wrong_usage(self):
        self.assertIn("--port", self.fail_with(2, "serve", "-m", self.chat_model, "--port", "99999"))
        self.assertIn("no-such.gguf", self.fail_with(1, "serve", "-m", "no-such.gguf"))
        self.assertIn("--trusted-proxy: want an address",
                      self.fail_with(1, "serve", "-m", self.chat_model, "--trusted-proxy", "localhost"))
        self.assertIn("no.such.host.invalid",
                      self.fail_with(1, "serve", "-m", self.chat_model, "--host", "no.such.host.invalid"))


if __name__ == "__main__":
    unittest.main()
