"""Who starts a replica's process: the scaler itself, or a starter that outlives its container.

A process dies with the container that it was started in. A starter in a container of its own, whose
processes, network and shared memory the scaler shares, starts replicas for it: so a container of
the scaler that is replaced takes none with it. It is told what to start over a socket of the file
system, in one line of JSON, and answers with the process id. Who is of another user is refused.
"""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

PRIVATE = 0o077
"""The umask of replicas: what they write is for this user alone."""

MAX_BYTES = 1 << 20
"""Of a line."""


class Starter(Protocol):
    """Starts processes that outlive who asked for them."""

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
    ) -> int:
        """Starts one in a session of its own; returns its id. Blocks for a moment.

        Args:
            argv: the program and what it is told.
            environment: all of its variables.
            folder: it runs in.
            output: file that takes what it says, at the end.

        Raises:
            OSError: it cannot be started.
            StartHindered: the starter cannot be asked.
        """


class OwnStarter:
    """Starts them as children of this process, which outlive it."""

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
    ) -> int:
        """See `Starter`."""
        with output.open("ab") as said:
            process = subprocess.Popen(  # noqa: S603
                argv,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=PRIVATE,
            )
        # From here on it is known by its id and start; its parent collects it by its id.
        process.returncode = 0
        return process.pid


def read_line(connection: socket.socket) -> dict[str, Any]:
    """What the other side says.

    Raises:
        OSError: it says nothing in time.
        ValueError: what it says is no line of JSON, or too long.
    """
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more or len(line) + len(more) > MAX_BYTES:
            raise ValueError("the message has no end")
        line += more
    try:
        told = json.loads(line)
    except RecursionError as error:
        raise ValueError("the message is nested too deeply") from error
    if not isinstance(told, dict):
        raise ValueError("the message has no keys")  # noqa: TRY004 - of what is said, not of code
    return told


def user_of(connection: socket.socket) -> int:
    """Whose process is at the other side of a socket of the file system."""
    form = "3i"
    size = struct.calcsize(form)
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack(form, told)[1])


def is_same_user(connection: socket.socket) -> bool:
    """Whether that is a process of this user."""
    return user_of(connection) == os.getuid()
