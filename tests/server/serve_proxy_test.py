#!/usr/bin/env python3
"""Two replicas behind HAProxy and behind nginx, with the files of deploy/: streams pass, and when a replica is killed
under load no request is lost that could be sent again. Ends with 77 ("skipped") when neither proxy is installed."""

import concurrent.futures
import re
import shutil
import socket
import subprocess
import sys
import time
import unittest

import serve_harness
from serve_harness import ROOT, Server, chat, chat_text, events


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Behind(Server):
    """A proxy, asked as if it were a server."""

    def __init__(self, command, port):  # pylint: disable=super-init-not-called
        self.port = port
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
        self.process.kill()
        self.process.wait()


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
            text = (f"daemon off; worker_processes 1; pid {self.path}/nginx.pid; error_log {self.path}/error.log;\n"
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

    def kill_one(self, proxy, servers):
        def ask(i):
            return proxy.post("/v1/chat/completions", chat(f"abc {i}", max_tokens=2000, ignore_eos=True)).status

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(40)]
            while sum(future.done() for future in asked) < 6 or not servers[0].metric("vllm:num_requests_running"):
                time.sleep(0.01)
            servers[0].process.kill()
            self.assertLess(sum(future.done() for future in asked), 40)
            statuses = [future.result() for future in asked]
        self.assertEqual(statuses, [200] * 40)

    @unittest.skipUnless(shutil.which("haproxy"), "haproxy is not installed")
    def test_haproxy(self):
        self.check(lambda servers, port: ["haproxy", "-f", self.write("haproxy.cfg", servers, port)])

    @unittest.skipUnless(shutil.which("nginx"), "nginx is not installed")
    def test_nginx(self):
        self.check(lambda servers, port: ["nginx", "-p", str(self.path), "-c", self.write("nginx.conf", servers, port)])


if __name__ == "__main__":
    if not shutil.which("haproxy") and not shutil.which("nginx"):
        print("serve_proxy_test: skipped: neither haproxy nor nginx is installed")
        sys.exit(77)
    unittest.main()
