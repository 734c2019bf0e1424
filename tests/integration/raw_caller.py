"""A caller that speaks HTTP/2 by hand, to do what gRPC's own clients never do."""

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Self

from bench.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    message,
    request_headers,
)

GENERATE = "/pennyweight.router.v1.RouterService/Generate"
_FIRST_WINDOW = 4
"""The setting that says how much of each stream may be sent ahead."""


@dataclass
class Seen:
    """What has come on a stream: bytes of messages, header blocks, whether it has ended."""

    data: int = 0
    headers: list[bytes] = field(default_factory=list)
    ended: bool = False


class RawCaller:
    """One connection; `window` is how many bytes each stream may send before it is read.

    Without a key it is a stranger's.
    """

    def __init__(self, port: int, key: str | None, *, window: int = 0) -> None:
        self._port = port
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._window = window
        self._next = 1
        self.streams: dict[int, Seen] = {}

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        settings = struct.pack(">HI", _FIRST_WINDOW, self._window)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        self._writer.close()

    def call(self, method: str, request: bytes, **metadata: str) -> int:
        """Calls; returns the number of its stream."""
        stream, self._next = self._next, self._next + 2
        self.streams[stream] = Seen()
        headers = request_headers(method, "localhost", **(self._headers | metadata))
        self._writer.write(
            frame(HEADERS, END_HEADERS, stream, headers)
            + frame(DATA, END_STREAM, stream, message(request))
        )
        return stream

    def grant(self, stream: int, size: int) -> None:
        """Lets the other side send more of a stream."""
        self._writer.write(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)))

    async def _read(self) -> None:
        while True:
            word, flags, number = struct.unpack(">IBI", await self._reader.readexactly(9))
            payload = await self._reader.readexactly(word >> 8)
            kind = word & 255
            if kind == SETTINGS and not flags & ACK:
                self._writer.write(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self._writer.write(frame(PING, ACK, 0, payload))
            stream = self.streams.get(number)
            if stream is None:
                continue
            if kind == DATA:
                stream.data += len(payload)
            elif kind == HEADERS:
                stream.headers.append(payload)
            if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
                stream.ended = True
