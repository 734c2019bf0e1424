"""Messages over a socket that never blocks.

Neither side may wait for the other to read: the engine would stop stepping, the stub would stop
accepting. What the socket does not take at once is kept and sent by `flush`.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<I")
_CHUNK = 1 << 18


class ClosedError(Exception):
    """The other side is gone."""


class Transport:
    """One end of a socket pair, for one reader and one writer at a time."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)  # noqa: FBT003
        self._socket = end
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        """The descriptor, for polling."""
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something waits for the socket to take it."""
        return bool(self._outgoing)

    def send(self, message: object) -> None:
        """Send now what the socket takes, keep the rest. Raises `ClosedError`."""
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._outgoing += _HEADER.pack(len(body))
        self._outgoing += body
        self.flush()

    def flush(self) -> None:
        """Send on what is unsent. Raises `ClosedError`."""
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            except OSError as error:
                raise ClosedError from error
            del self._outgoing[:sent]

    def receive(self) -> list[Any]:
        """Return every whole message that has arrived. Raises `ClosedError` once none is left."""
        closed = False
        while True:
            try:
                chunk = self._socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                closed = True
                break
            self._incoming += chunk
        messages = self._messages()
        if closed and not messages:
            raise ClosedError
        return messages

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _messages(self) -> list[Any]:
        messages = []
        start = 0
        while len(self._incoming) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._incoming, start)
            end = start + _HEADER.size + length
            if end > len(self._incoming):
                break
            with memoryview(self._incoming)[start + _HEADER.size : end] as body:
                messages.append(pickle.loads(body))  # noqa: S301 - our own process wrote it
            start = end
        del self._incoming[:start]
        return messages
