#!/usr/bin/env python3
"""Two replicas behind HAProxy and behind nginx, with the files of deploy/: streams pass, when a replica is killed under
load no request is lost that could be sent again, and when it is told to end nothing is lost at all. Without the proxies:
see harness.require."""

import concurrent.futures
import os
import re
import shutil
import socket
import subprocess
import time
import unittest

import serve_harness
import harness
from serve_harness import ROOT, Server, chat, chat_text, events


def find(name):
    """Debian keeps servers where users do not look."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Behind(Server):
    """A proxy, asked as if it were a server."""

    def __init__(self, command, port):  # pylint: disable=super-init-not-called
        self.port, self.unix_path = port, None
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + serve_harness.TIMEOUT
        while time.monotonic() < end:
            try:
                if self.get("/health").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("the proxy did not start")

    def stop(self):
        self.process.terminate()  # killed, nginx would leave its workers behind
        try:
            self.process.wait(timeout=serve_harness.TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Proxies(serve_harness.Tool):
    def replicas(self):
        servers = [Server("-m", f"tiny={self.chat_model}", "-c", "4096") for _ in range(2)]
        for server in servers:
            self.addCleanup(server.stop)
        return servers

    def write(self, name, servers, port):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        for replica, server in zip(("8080", "8081"), servers):
            text = text.replace("127.0.0.1:" + replica, f"127.0.0.1:{server.port}")
        if name == "haproxy.cfg":
            text = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        else:  # no certificate here
            text = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", text)
            text = re.sub(r" *ssl_certificate.*\n", "", text)
            # Large bodies go through files in a folder that is this user's.
            user = "user root;\n" if os.getuid() == 0 else ""
            text = (user + f"daemon off; worker_processes 1; pid {self.path}/nginx.pid; error_log {self.path}/error.log;\n"
                    "events {}\nhttp {\naccess_log off;\n" +
                    "".join(f"{kind}_temp_path {self.path}/{kind};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")) + text + "}\n")
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def check(self, start):
        servers, port = self.replicas(), free_port()
        proxy = Behind(start(servers, port), port)
        self.addCleanup(proxy.stop)
        # A stream passes piece by piece, not as a whole at its end.
        connection, response = proxy.open_stream("/v1/chat/completions", chat("abc", max_tokens=3000, ignore_eos=True))
        first = response.readline()
        self.assertTrue(first.startswith(b"data:"), first)
        self.assertGreaterEqual(sum(server.metric("vllm:num_requests_running") for server in servers), 1)
        connection.close()
        whole = proxy.post("/v1/chat/completions", chat("abc", max_tokens=20, ignore_eos=True)).json
        connection, response = proxy.open_stream("/v1/chat/completions", chat("abc", max_tokens=20, ignore_eos=True))
        self.assertEqual(chat_text(events(response)), whole["choices"][0]["message"]["content"])
        connection.close()
        self.kill_one(proxy, servers)

    @staticmethod
    def under_load(ask, servers, act, n=40):
        """`act` happens while some of n requests are done and one runs on the first replica."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(n)]
            while sum(future.done() for future in asked) < 6 or not servers[0].metric("vllm:num_requests_running"):
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

    def drain_one(self, start):
        servers, port = self.replicas(), free_port()
        proxy = Behind(start(servers, port), port)
        self.addCleanup(proxy.stop)

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

    def haproxy(self, servers, port):
        return [find("haproxy"), "-f", self.write("haproxy.cfg", servers, port)]

    def nginx(self, servers, port):
        return [find("nginx"), "-p", str(self.path), "-c", self.write("nginx.conf", servers, port)]

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy(self):
        self.check(self.haproxy)

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy_while_a_replica_drains(self):
        self.drain_one(self.haproxy)

    @unittest.skipUnless(find("haproxy"), "haproxy is not installed")
    def test_haproxy_passes_what_it_could_not_repeat(self):
        servers, port = self.replicas(), free_port()
        proxy = Behind(self.haproxy(servers, port), port)
        self.addCleanup(proxy.stop)
        body = chat("abc", max_tokens=4, padding="x" * (5 << 20))
        self.assertEqual(proxy.post("/v1/chat/completions", body).status, 200)

    @unittest.skipUnless(find("nginx"), "nginx is not installed")
    def test_nginx(self):
        self.check(self.nginx)

    @unittest.skipUnless(find("nginx"), "nginx is not installed")
    def test_nginx_while_a_replica_drains(self):
        self.drain_one(self.nginx)


if __name__ == "__main__":
    harness.require("haproxy and nginx", find("haproxy") and find("nginx"))
    unittest.main()
