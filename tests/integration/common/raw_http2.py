"""HTTP/2 as bytes, for requests that no client library would send."""

import asyncio
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
EMPTY_MESSAGE = bytes(5)

Fields = Sequence[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def request(
    *more: tuple[bytes, bytes],
    path: bytes = b"/t.T/U",
    authority: bytes = b"localhost",
    message: bytes = EMPTY_MESSAGE,
) -> bytes:
    """A whole connection with one gRPC call: preface, settings, headers, one message."""
    fields: Fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", authority),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return (
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, 1, b"".join(_literal(*field) for field in fields))
        + frame(DATA, END_STREAM, 1, message)
    )


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that stands for itself: not indexed, not compressed."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, length = len(text) - 127, b"\x7f"
    while rest >= 128:
        length += bytes((rest % 128 + 128,))
        rest //= 128
    return length + bytes((rest,)) + text


async def answer(port: int, sent: bytes, seconds: float = 10.0) -> bytes:
    """What the server says until it ends the call or the connection: frames, undecoded."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        writer.write(sent)
        async with asyncio.timeout(seconds):
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                heard += head + payload
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == GOAWAY or (stream and (kind == RST_STREAM or flags & END_STREAM)):
                    return heard
    except (asyncio.IncompleteReadError, ConnectionError):
        return heard
    finally:
        writer.close()
