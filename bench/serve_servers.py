"""Starts and stops the servers that bench/serve_load.py compares."""

import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import serve_client

START_S = 300
STOP_S = 60


def reserve_port():
    """A socket with a port of 127.0.0.1 that a server may listen on and that nobody else gets before the socket is closed."""
    held = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # servers allow the first or the second
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    held.bind(("127.0.0.1", 0))
    return held


def ours(args, name="dspark", policy="adaptive", more=()):
    drafter = args.drafter if policy != "off" else "none"
    return name, [args.dspark, "serve", "-m", args.model, "-d", drafter, "--spec", policy, "-t", args.threads,
                  "-n", args.slots, "-c", args.context, "--queue", "4096", "-q", "--no-page",
                  *shlex.split(args.ours_args), *more]


def peer(name, program, extra, args):
    """llama.cpp's server and ik_llama.cpp's take the same options; -c is for all slots together."""
    return name, [program, "-m", args.model, "--host", "127.0.0.1", "-t", args.threads, "-tb", args.threads,
                  "-np", args.slots, "-c", args.context * args.slots, *shlex.split(extra)]


def commands(args):
    """(name, command without the port) of every server asked for; ours is the first."""
    out = [ours(args)]
    if args.llama_server:
        out.append(peer("llama.cpp", args.llama_server, args.llama_args, args))
    if args.ik_server:
        out.append(peer("ik_llama.cpp", args.ik_server, args.ik_args, args))
    return out


class Launched:
    """One running server; a dict of what serve_client wants is in `server`."""

    def __init__(self, name, command, out):
        self.reserved = reserve_port()
        port = self.reserved.getsockname()[1]
        self.name = name
        self.command = [str(word) for word in (*command, "--port", port)]
        self.log = out / f"{name}.log"
        print(f"{name}: {shlex.join(self.command)}", file=sys.stderr, flush=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.server = {"name": name, "url": f"http://127.0.0.1:{port}", "key": ""}

    def wait(self):
        """Returns when the server is healthy."""
        end = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(self.server["url"] + "/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise serve_client.Failure(f"{self.name} did not start, its log {self.log} ends with:\n{tail}")
            time.sleep(0.1)
        self.server["model"] = serve_client.call(self.server, "/v1/models")["data"][0]["id"]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.reserved.close()


class Fleet:
    """Servers that live as long as the with statement."""

    def __init__(self, wanted, out):
        self.wanted, self.out, self.launched = wanted, out, []

    def __enter__(self):
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            for name, command in self.wanted:
                self.launched.append(Launched(name, command, self.out))
                self.launched[-1].wait()  # one after the other: some measure their costs as they start
        except BaseException:
            self.__exit__()
            raise
        return self.launched

    def __exit__(self, *_):
        for one in self.launched:
            one.stop()
