"""As much of gRPC over HTTP/2 as a load generator and a scripted replica need, and as lean.

Two cores carry everything here, so what stands around the measured router must cost little: a
`grpc.aio` client takes as long over a message as half the router does. This speaks frames directly:
request headers are bytes made once, response headers are not decoded (an answer is judged by its
messages), messages are cut out of the frames and no more.

Left out: TLS, padding, compression. Not for anything but benchmarks.
"""

import abc
import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

_HEADER = struct.Struct(">IBI")  # the length's 24 bits and the kind's 8, flags, stream
_MESSAGE = struct.Struct(">BI")  # compressed or not, length

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
WIDE_WINDOW = 2**31 - 1
MAX_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def message(data: bytes) -> bytes:
    """A gRPC message around a serialised one."""
    return _MESSAGE.pack(0, len(data)) + data


def _literal(name: int | str, value: str) -> bytes:
    """A header that leaves nothing in the peer's table; an int is a name of the static table."""
    if isinstance(name, str):
        key = b"\0" + bytes((len(name),)) + name.encode()
    else:
        key = bytes((name,)) if name < 15 else bytes((15, name - 15))
    if len(value) >= 127:
        raise ValueError(f"header values have fewer than 127 characters here, got {len(value)}")
    return key + bytes((len(value),)) + value.encode()


def request_headers(path: str, authority: str, **metadata: str) -> bytes:
    """What opens a call of `path`: POST over http."""
    known = _literal(4, path) + _literal(1, authority) + _literal(31, "application/grpc")
    more = b"".join(_literal(name.replace("_", "-"), value) for name, value in metadata.items())
    return b"\x83\x86" + known + _literal("te", "trailers") + more


RESPONSE_HEADERS = b"\x88" + _literal(31, "application/grpc")
RESPONSE_TRAILERS = _literal("grpc-status", "0")


class Connection(asyncio.Protocol, abc.ABC):
    """Either end of a connection: frames in and out, flow control.

    Attributes:
        window: bytes that the peer may send ahead, on a stream and in all.
    """

    window = WIDE_WINDOW

    def __init__(self) -> None:
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._rest = b""
        self._window = self._first_window = DEFAULT_WINDOW
        self._windows: dict[int, int] = {}  # streams that have sent something
        self._received = 0
        self._held: deque[tuple[int, int, bytes]] = deque()
        self._paused = False
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens the windows, for the peer to send at will."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HIHI", 4, self.window, 3, 10_000)  # window, most streams
        opening = self._greeting() + frame(SETTINGS, 0, 0, settings)
        if self.window > DEFAULT_WINDOW:
            more = struct.pack(">I", self.window - DEFAULT_WINDOW)
            opening += frame(WINDOW_UPDATE, 0, 0, more)
        self._transport.write(opening)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is gone."""
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        """Cuts what came into frames."""
        if self._rest:
            data = self._rest + data
        at, end, unpack = 0, len(data), _HEADER.unpack_from
        while end - at >= 9:
            word, flags, stream = unpack(data, at)
            following = at + 9 + (word >> 8)
            if following > end:
                break
            self._take(word & 255, flags, stream, data[at + 9 : following])
            at = following
        self._rest = data[at:]

    @property
    def blocked(self) -> bool:
        """Whether what is sent now would have to wait here."""
        return self._paused or bool(self._held)

    def pause_writing(self) -> None:
        """The peer reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._paused = False

    def send(self, stream: int, size: int, frames: bytes) -> None:
        """Sends whole frames of a stream, of which `size` bytes are DATA, once the windows allow.

        What cannot go yet holds up what is sent after it, other streams' too.
        """
        if self._held or not self._take_room(stream, size):
            self._held.append((stream, size, frames))
        else:
            self._transport.write(frames)

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._windows.pop(stream, None)

    async def close(self) -> None:
        """Closes the connection."""
        self._transport.close()
        await self._lost.wait()

    def abort(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._grant(len(payload))
            self._data(stream, payload, ended=bool(flags & END_STREAM))
        elif kind == HEADERS:
            self._headers(stream, ended=bool(flags & END_STREAM))
        elif kind == WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == SETTINGS and not flags & ACK:
            self._settle(payload)
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self._reset(stream)
        elif kind == GOAWAY:
            self._transport.close()

    def _grant(self, size: int) -> None:
        """Lets the peer send as much as has come, now and then."""
        self._received += size
        if self._received > self.window // 4:
            update = struct.pack(">I", self._received)
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, update))
            self._received = 0

    def _widen(self, stream: int, size: int) -> None:
        if stream == 0:
            self._window += size
        elif stream in self._windows:
            self._windows[stream] += size
        self._release()

    def _settle(self, settings: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", settings):
            if key == 4:  # the window that streams start with
                for stream in self._windows:
                    self._windows[stream] += value - self._first_window
                self._first_window = value
                self._release()

    def _take_room(self, stream: int, size: int) -> bool:
        """Takes `size` bytes from both windows if both have them."""
        room = self._windows.get(stream, self._first_window)
        if size > room or size > self._window:
            return False
        self._windows[stream] = room - size
        self._window -= size
        return True

    def _release(self) -> None:
        while self._held and self._take_room(*self._held[0][:2]):
            self._transport.write(self._held.popleft()[2])

    def _greeting(self) -> bytes:
        return b""

    @abc.abstractmethod
    def _headers(self, stream: int, *, ended: bool) -> None:
        """Headers came on a stream."""

    @abc.abstractmethod
    def _data(self, stream: int, payload: bytes, *, ended: bool) -> None:
        """Data came on a stream."""

    @abc.abstractmethod
    def _reset(self, stream: int) -> None:
        """The peer gave a stream up."""


class Messages:
    """Cuts one stream's payloads into messages."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, payload: bytes) -> list[bytes]:
        """The messages that are whole by now."""
        data = self._rest + payload if self._rest else payload
        at, end, found = 0, len(data), []
        while end - at >= 5:
            following = at + 5 + int(_MESSAGE.unpack_from(data, at)[1])
            if following > end:
                break
            found.append(data[at + 5 : following])
            at = following
        self._rest = data[at:]
        return found


class Call:
    """A call in flight: how many messages came, and the last of them."""

    __slots__ = ("_cutter", "ended", "last", "messages", "on_message")

    def __init__(
        self, ended: Callable[["Call"], None], on_message: Callable[[bytes], None] | None
    ) -> None:
        self.ended = ended
        self.on_message = on_message
        self.messages = 0
        self.last = b""
        self._cutter = Messages()

    def feed(self, payload: bytes) -> None:
        """Takes what came."""
        for one in self._cutter.cut(payload):
            self.messages += 1
            self.last = one
            if self.on_message is not None:
                self.on_message(one)


class Client(Connection):
    """The calling end."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, Call] = {}
        self._next = 1

    @classmethod
    async def connect(cls, address: str) -> "Client":
        """Connects to host:port."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, host, int(port))
        return client

    def call(
        self,
        headers: bytes,
        request: bytes,
        ended: Callable[[Call], None],
        on_message: Callable[[bytes], None] | None = None,
    ) -> None:
        """Starts a call with one request message; `ended` is told when it is over."""
        data = message(request)
        if len(data) > MAX_FRAME:
            raise ValueError(f"a request must fit into one frame, got {len(data)} bytes")
        stream, self._next = self._next, self._next + 2
        self._calls[stream] = Call(ended, on_message)
        opening = frame(HEADERS, END_HEADERS, stream, headers)
        self.send(stream, len(data), opening + frame(DATA, END_STREAM, stream, data))

    async def ask(
        self, headers: bytes, request: bytes, on_message: Callable[[bytes], None] | None = None
    ) -> Call:
        """Makes one call and waits for its end."""
        done: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self.call(headers, request, done.set_result, on_message)
        return await done

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the calls in flight; they have not got their last message."""
        super().connection_lost(exc)
        for stream in list(self._calls):
            self._reset(stream)

    def _greeting(self) -> bytes:
        return PREFACE

    def _headers(self, stream: int, *, ended: bool) -> None:
        if ended:
            self._reset(stream)

    def _data(self, stream: int, payload: bytes, *, ended: bool) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.feed(payload)
        if ended:
            self._reset(stream)

    def _reset(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        self.forget(stream)
        if call is not None:
            call.ended(call)


class ServerConnection(Connection):
    """The answering end of streams in both directions: hands each message to `answer`.

    The caller's end of a stream is the end of it here, once `open` counts no unanswered message.
    """

    def __init__(self, answer: Callable[["ServerConnection", int, bytes], None]) -> None:
        super().__init__()
        self._answer = answer
        self._greeted = False
        self._requests: dict[int, Messages] = {}
        self._half_closed: set[int] = set()
        self.open: dict[int, int] = {}

    def data_received(self, data: bytes) -> None:
        """Skips the preface, then reads frames."""
        if not self._greeted:
            self._rest += data
            if len(self._rest) < len(PREFACE):
                return
            data, self._rest = self._rest[len(PREFACE) :], b""
            self._greeted = True
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drops what was under way."""
        super().connection_lost(exc)
        self.open.clear()

    def respond(self, stream: int, data: bytes, *, last: bool) -> None:
        """Sends a message (see `message`) of an answer, if the stream is still there."""
        if stream not in self.open:
            return
        self.send(stream, len(data), frame(DATA, 0, stream, data))
        if last:
            self.open[stream] -= 1
            self._close_if_done(stream)

    def _headers(self, stream: int, *, ended: bool) -> None:
        self._requests[stream] = Messages()
        self.open[stream] = 0
        self.send(stream, 0, frame(HEADERS, END_HEADERS, stream, RESPONSE_HEADERS))
        if ended:
            self._half_close(stream)

    def _data(self, stream: int, payload: bytes, *, ended: bool) -> None:
        if stream in self._requests:
            for one in self._requests[stream].cut(payload):
                self.open[stream] += 1
                self._answer(self, stream, one)
            if ended:
                self._half_close(stream)

    def _half_close(self, stream: int) -> None:
        self._half_closed.add(stream)
        self._close_if_done(stream)

    def _close_if_done(self, stream: int) -> None:
        if stream in self._half_closed and not self.open[stream]:
            flags = END_HEADERS | END_STREAM
            self.send(stream, 0, frame(HEADERS, flags, stream, RESPONSE_TRAILERS))
            self._reset(stream)

    def _reset(self, stream: int) -> None:
        self._half_closed.discard(stream)
        self._requests.pop(stream, None)
        self.open.pop(stream, None)
        self.forget(stream)
