"""Ports for programs that have to be told one: proxies, a server that is started again, the browser's driver."""

import socket


def reserve_port():
    """(socket, port) of 127.0.0.1. Until the socket is closed the system gives this port to nobody who asks for any, neither to
    listen on nor as the near end of a connection; a program that is told the port can listen on it, as often as it starts. One
    that was only found free may be gone by then: tests run side by side, and every connection of theirs takes a port."""
    held = socket.socket()
    # Linux lets a program listen beside a socket that is bound only, when both allow the same kind of reuse: most servers
    # allow the first, some only the second.
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]
