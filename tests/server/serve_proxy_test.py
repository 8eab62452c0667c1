#!/usr/bin/env python3
"""Two replicas behind HAProxy and behind nginx, with the files of deploy/ and over TLS: streams pass, replicas learn who
asks, when a replica is killed under load no request is lost that could be sent again, it gets requests again when it is
back, and when a replica is told to end nothing is lost at all. Without the proxies: see harness.require."""

import concurrent.futures
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import unittest
from pathlib import Path

import serve_harness
import harness
from ports import reserve_port
from serve_harness import ROOT, Server, chat, chat_text, events, wait_until


def find(name):
    """Debian keeps servers where users do not look."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Behind(Server):
    """A proxy, asked over TLS as if it were a server. What it says goes to the file `log`."""

    def __init__(self, command, port, certificate, log):  # pylint: disable=super-init-not-called
        self.port, self.unix_path = port, None
        self.tls = ssl.create_default_context(cafile=certificate)
        self.source = None  # (address, port) that clients ask from
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + serve_harness.TIMEOUT
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if self.get("/health").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the proxy did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")

    def connection(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=serve_harness.TIMEOUT, context=self.tls,
                                           source_address=self.source)

    def stop(self):
        self.process.terminate()  # killed, nginx would leave its workers behind
        try:
            self.process.wait(timeout=serve_harness.TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Proxies(serve_harness.Tool):
    plain_port = None  # of HAProxy, beside that for TLS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.certificate, cls.key = str(cls.path / "certificate.pem"), str(cls.path / "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", cls.key,
                        "-out", cls.certificate], check=True, capture_output=True)
        cls.both = cls.path / "both.pem"
        cls.both.write_bytes(Path(cls.certificate).read_bytes() + Path(cls.key).read_bytes())

    def own_port(self):
        """One that stays this test's to its end, also while nobody listens on it."""
        held, port = reserve_port()
        self.addCleanup(held.close)
        return port

    def replica(self, *arguments, port=None):
        server = Server("-m", f"tiny={self.chat_model}", "-c", "4096", "--trusted-proxy", "127.0.0.1",
                        "--port", str(port or self.own_port()), *arguments)
        self.addCleanup(server.stop)
        return server

    def restart(self, killed, *arguments):
        killed.wait()
        return self.replica(*arguments, port=killed.port)

    def behind(self, start, *arguments):
        """A proxy and its two replicas."""
        servers, port = [self.replica(*arguments) for _ in range(2)], self.own_port()
        proxy = Behind(start(servers, port), port, self.certificate, self.path / "proxy.log")
        self.addCleanup(proxy.stop)
        return proxy, servers

    def changed(self, name, servers, changes):
        """A file of deploy/ with the replicas' ports and other changes, each of something that stands there."""
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        ports = {f"server {place}127.0.0.1:{old}": f"server {place}127.0.0.1:{server.port}"
                 for place, old, server in zip(("a ", "b ") if name == "haproxy.cfg" else ("", ""), (8080, 8081), servers)}
        for old, new in {**changes, **ports}.items():
            self.assertEqual(text.count(old), 1, f"{name}: {old}")
            text = text.replace(old, new)
        return text

    def haproxy(self, servers, port):
        self.plain_port = self.own_port()
        path = self.path / "haproxy.cfg"
        path.write_text(self.changed("haproxy.cfg", servers, {
            "bind 127.0.0.1:8000": f"bind 127.0.0.1:{self.plain_port}",
            "# bind :443 ssl crt /etc/haproxy/llm.pem": f"bind 127.0.0.1:{port} ssl crt {self.both}"}), encoding="utf-8")
        return [find("haproxy"), "-f", str(path)]

    def nginx(self, servers, port):
        text = self.changed("nginx.conf", servers, {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/ssl/llm.example.org.pem;": f"{self.certificate};",
            "/etc/ssl/llm.example.org.key;": f"{self.key};"})
        # Large bodies go through files in a folder that is this user's.
        user = "user root;\n" if os.getuid() == 0 else ""
        text = (user + f"daemon off; worker_processes 1; pid {self.path}/nginx.pid; error_log {self.path}/error.log;\n"
                "events {}\nhttp {\naccess_log off;\n" +
                "".join(f"{kind}_temp_path {self.path}/{kind};\n" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")) + text + "}\n")
        path = self.path / "nginx.conf"
        path.write_text(text, encoding="utf-8")
        return [find("nginx"), "-p", str(self.path), "-c", str(path)]

    def check(self, start):
        proxy, servers = self.behind(start, "-c", "65536")
        self.check_tls(proxy)
        self.check_address(proxy, servers)
        # A stream passes piece by piece, not as a whole at its end.
        connection, response = proxy.open_stream("/v1/chat/completions", chat("abc", max_tokens=60000, ignore_eos=True))
        first = response.readline()
        self.assertTrue(first.startswith(b"data:"), first)
        # The metrics tell of the last step that ended, so they may lag behind the first token.
        wait_until(lambda: sum(server.metric("vllm:num_requests_running") for server in servers) >= 1, "a running request")
        connection.close()
        whole = proxy.post("/v1/chat/completions", chat("abc", max_tokens=20, ignore_eos=True)).json
        connection, response = proxy.open_stream("/v1/chat/completions", chat("abc", max_tokens=20, ignore_eos=True))
        self.assertEqual(chat_text(events(response)), whole["choices"][0]["message"]["content"])
        connection.close()
        self.kill_one(proxy, servers)
        self.comes_back(proxy, self.restart(servers[0]))

    def check_tls(self, proxy):
        stranger = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=serve_harness.TIMEOUT,
                                               context=ssl.create_default_context())
        with self.assertRaises(ssl.SSLCertVerificationError):  # so it is the certificate above that lets the others in
            stranger.request("GET", "/health")

    def check_address(self, proxy, servers):
        """The replicas know the client, whatever it says that it is."""
        proxy.source = ("127.0.0.2", 0)
        for claim in ({}, {"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "203.0.113.9, 203.0.113.10"}):
            told = proxy.get("/health/live", claim)
            self.assertEqual(told.status, 200)
            words = f"id={told.headers['x-request-id']} client=127.0.0.2 "
            wait_until(lambda: any(server.log_line(words) for server in servers), "a line with " + words, 10)
        proxy.source = None

    @staticmethod
    def under_load(ask, servers, act, n=40):
        """`act` happens while some of n requests are done and one runs on the first replica."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(n)]
            while sum(future.done() for future in asked) < 6 or not servers[0].metric("vllm:num_requests_running"):
                if all(future.done() for future in asked):
                    break  # the first replica was never seen at work: the caller is told that this was no load
                time.sleep(0.01)
            act()
            in_time = sum(future.done() for future in asked) < n
            return in_time, [future.result() for future in asked]

    def kill_one(self, proxy, servers):
        def ask(i):
            # Every other body is as large as can be repeated: fields that nobody knows are passed over.
            body = chat(f"abc {i}", max_tokens=2000, ignore_eos=True, padding="x" * ((1 << 20) - 1000 if i % 2 else 0))
            return proxy.post("/v1/chat/completions", body).status

        in_time, statuses = self.under_load(ask, servers, servers[0].process.kill)
        self.assertTrue(in_time, "all requests were done before the replica was killed")
        self.assertEqual(statuses, [200] * 40)

    def comes_back(self, proxy, restarted):
        def is_asked():
            self.assertEqual(proxy.post("/v1/chat/completions", chat("abc", max_tokens=2, ignore_eos=True)).status, 200)
            return restarted.metric("vllm:request_success_total") >= 1

        wait_until(is_asked, "the replica that was started again is asked")

    def before_the_first_token(self, start):
        """A streamed answer is asked for again while nothing of it was sent: first of a request that waits for its turn,
        then of one whose prompt is being read."""
        one_at_a_time = ("--parallel", "1", "-c", "65536", "--stream-buffer", str(1 << 30))
        proxy, servers = self.behind(start, *one_at_a_time)
        busy = [server.open_stream("/v1/chat/completions", chat("abcabcabc", max_tokens=60000, ignore_eos=True))
                for server in servers]
        killed, other, asked = self.kill_when(
            proxy, servers, chat("abc", max_tokens=20, ignore_eos=True),
            lambda server: server.metric("vllm:num_requests_waiting") == 1)
        wait_until(lambda: asked.done() or other.metric("vllm:num_requests_waiting") == 1, "it waits at the other replica")
        for connection, _ in busy:
            connection.close()
        self.assert_whole(asked.result(), other, chat("abc", max_tokens=20, ignore_eos=True))

        servers = [other, self.restart(killed, *one_at_a_time)]
        self.comes_back(proxy, servers[1])
        for server in servers:
            server.wait_idle()
        steps = {server: server.metric("dspark_steps_total") for server in servers}
        read = {server: server.metric("vllm:prompt_tokens_total") for server in servers}
        body = chat("x" * 20000, max_tokens=20, ignore_eos=True)
        killed, other, asked = self.kill_when(
            proxy, servers, body, lambda server: server.metric("dspark_steps_total") >= steps[server] + 3)
        result = asked.result()
        self.assertGreaterEqual(other.metric("vllm:prompt_tokens_total"), read[other] + 20000,
                                "the replica was killed too late: the other one was not asked")
        self.assert_whole(result, other, body)

    @staticmethod
    def kill_when(proxy, servers, body, holds):
        """Asks the proxy for a stream and kills the replica of which `holds` comes true. returns: the killed replica, the
        other one, the future (status, bytes)."""
        def ask():
            connection, response = proxy.open_stream("/v1/chat/completions", body)
            got = response.read()
            connection.close()
            return response.status, got

        pool = concurrent.futures.ThreadPoolExecutor(1)
        asked = pool.submit(ask)
        pool.shutdown(wait=False)
        found = []
        wait_until(lambda: found.extend(server for server in servers if holds(server)) or found, "a replica has it")
        found[0].process.kill()
        return found[0], next(server for server in servers if server is not found[0]), asked

    def assert_whole(self, result, server, body):
        """The stream is complete, and says what the server says to the same body."""
        status, got = result
        self.assertEqual(status, 200, got[-300:])
        self.assertTrue(got.endswith(b"data: [DONE]\n\n"), got[-300:])
        chunks = [json.loads(line[5:]) for line in got.splitlines() if line.startswith(b"data: {")]
        self.assertEqual(chat_text(chunks), server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"])

    def drain_one(self, start):
        proxy, servers = self.behind(start)

        def ask(i):
            body = chat(f"abc {i}", max_tokens=2000, ignore_eos=True)
            if i % 2:
                return proxy.post("/v1/chat/completions", body).status
            connection, response = proxy.open_stream("/v1/chat/completions", body)
            got = response.read()
            connection.close()
            return response.status if got.endswith(b"data: [DONE]\n\n") else got[-300:]

        in_time, results = self.under_load(ask, servers, servers[0].signal)
        self.assertTrue(in_time, "all requests were done before the replica was told to end")
        self.assertEqual(results, [200] * 40)
        self.assertEqual(servers[0].wait(), 0, servers[0].log())

    def test_a_port_waits_for_who_starts_again(self):
        port = self.own_port()
        for _ in range(2):
            with socket.socket() as stranger, self.assertRaises(OSError):
                stranger.bind(("127.0.0.1", port))
            server = self.replica(port=port)
            self.assertEqual(server.get("/health").status, 200)
            self.assertEqual(server.stop(), 0, server.log())

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy(self):
        self.check(self.haproxy)
        plain = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=serve_harness.TIMEOUT)
        plain.request("GET", "/health")
        self.assertEqual(plain.getresponse().status, 200)
        plain.close()

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy_before_the_first_token(self):
        self.before_the_first_token(self.haproxy)

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy_while_a_replica_drains(self):
        self.drain_one(self.haproxy)

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy_passes_what_it_could_not_repeat(self):
        proxy, _ = self.behind(self.haproxy)
        body = chat("abc", max_tokens=4, padding="x" * (5 << 20))
        self.assertEqual(proxy.post("/v1/chat/completions", body).status, 200)

    @unittest.skipUnless(find("nginx"), "nginx is not installed")
    def test_nginx(self):
        self.check(self.nginx)

    @unittest.skipUnless(find("nginx"), "nginx is not installed")
    def test_nginx_before_the_first_token(self):
        self.before_the_first_token(self.nginx)

    @unittest.skipUnless(find("nginx"), "nginx is not installed")
    def test_nginx_while_a_replica_drains(self):
        self.drain_one(self.nginx)


if __name__ == "__main__":
    harness.require("haproxy, nginx and openssl", find("haproxy") and find("nginx") and find("openssl"))
    unittest.main()
