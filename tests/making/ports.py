"""Ports for the servers of tests."""

import contextlib
import random
import socket


def free_port() -> int:
    """A port that nobody listens on, and that the system does not give to others meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
