"""Runs the program on a pseudo-terminal, as a person does."""

import os
import pty
import re
import select
import signal
import time

from harness import BINARY, SLOWDOWN

CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments, term="xterm"):
        self.output = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = term
            try:
                os.execv(BINARY, [BINARY, *arguments])
            finally:
                os._exit(127)

    def send(self, data):
        os.write(self.descriptor, data if isinstance(data, bytes) else data.encode())

    def read_some(self, seconds):
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # the other side is closed
            return False
        self.output += data.decode("utf-8", "replace")
        return bool(data)

    def expect(self, pattern, seconds=60):
        """Waits for a pattern in what came since the last call; returns the text up to its end."""
        end = time.monotonic() + seconds * SLOWDOWN
        while time.monotonic() < end:
            match = re.search(pattern, self.output)
            if match:
                seen, self.output = self.output[: match.end()], self.output[match.end() :]
                return seen
            self.read_some(0.2)
        raise AssertionError(f"no {pattern!r} in {self.output!r}")

    def close(self, seconds=60):
        """The exit status."""
        end = time.monotonic() + seconds * SLOWDOWN
        while time.monotonic() < end:
            self.read_some(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.descriptor)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running; output {self.output!r}")
