"""Turns at reading messages: how many are on their way in at once, unparsed.

gRPC gathers a message as a whole before it hands it over, and tells its size to nobody before, so
each that is read counts as the largest.

And turns at parsing them: that holds up everybody, as long as the message has parts for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import grpc

from services.common.caller_turns import CallerTurns
from services.common.errors import BadRequest, DeadlineExceeded
from services.common.parts import NoMessage, Shape, counted

MOST_BYTES = 512 * 1024 * 1024
"""Of messages that are read at once."""

LEAST_TURNS = 16
ONE_IN = 4
"""The part of all turns that one caller has."""

LARGE_BYTES = 8 * 1024
"""Up to it a message is parsed in a tenth of a millisecond, whatever it consists of. Two bytes may
be a part, so that 256 KB may take 20 ms, and 4 MB more than a second."""

LONG_BYTES = 256 * 1024
"""Up to it so is a message of few parts: texts that long take a tenth of a millisecond."""

FEW_PARTS = 512
"""Of a large message. As many are counted at a time, which takes some 0.3 ms."""

MOST_PARTS = 16_384
"""Of any message: more than the fullest that keeps the rules of its call."""

READ_SECONDS = 30.0
"""How long a message may be on its way once it is read."""


@dataclass
class _Line:
    turns: asyncio.Semaphore
    users: int = 0


class Reading:
    """Turns at reading; state of a server.

    Args:
        most: turns that everybody has together; None bounds only each caller's.
        most_of_one: turns of one caller.
    """

    def __init__(self, most: int | None, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self._all = () if most is None else (asyncio.Semaphore(most),)
        self._lines: dict[str, _Line] = {}
        self._large = CallerTurns()

    @classmethod
    def of_bytes(cls, largest: int) -> Self:
        """As many turns as the memory for messages allows, whose largest has so many bytes."""
        most = max(LEAST_TURNS, MOST_BYTES // largest)
        return cls(most, most // ONE_IN)

    @asynccontextmanager
    async def turn(self, caller: str, seconds: float) -> AsyncIterator[float]:
        """Waits until one more message of this caller may be read, and holds its place.

        What is sent meanwhile is kept by gRPC, so neither wait nor message may take for ever.

        Args:
            caller: whose message it is.
            seconds: that the wait and the message may take together.

        Yields:
            What is left of them.

        Raises:
            DeadlineExceeded: the turn did not come within them.
        """
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = _Line(asyncio.Semaphore(self.most_of_one))
        line.users += 1
        until = asyncio.get_running_loop().time() + seconds
        wanted, held = (line.turns, *self._all), list[asyncio.Semaphore]()
        waits = any(turns.locked() for turns in wanted)  # else none of them does
        try:
            async with asyncio.timeout_at(until if waits else None):
                for turns in wanted:
                    await turns.acquire()
                    held.append(turns)
            yield max(0.0, until - asyncio.get_running_loop().time())
        except TimeoutError:
            if len(held) == len(wanted):  # it was no wait of ours
                raise
            raise DeadlineExceeded(
                f"other messages of this caller took all of {seconds:g} s", reason="READ_LATE"
            ) from None
        finally:
            for turns in held:
                turns.release()
            line.users -= 1
            if not line.users:
                del self._lines[caller]

    async def parsed(
        self,
        caller: str,
        deserialize: Callable[[bytes], Any],
        data: bytes,
        shape: Shape,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Any:
        """Parses a message that came in a turn.

        Those that may be dear come one by one, of each caller in turn, and what runs beside has
        most of the time: whoever's messages take long waits for them, and nobody else does.

        Args:
            caller: whose message it is.
            deserialize: parses it.
            data: it.
            shape: which of its parts are messages; see `shape_of`.
            clock: seconds.

        Raises:
            BadRequest: it has more parts than any call takes, or is no message.
        """
        if len(data) <= LARGE_BYTES:
            return deserialize(data)
        parts = counted(data, shape, FEW_PARTS)
        if not _more(parts) and len(data) <= LONG_BYTES:
            return deserialize(data)
        async with self._large.turn(caller, clock) as rest:
            while _more(parts):
                await rest()
            message = deserialize(data)
            await rest()
            return message


def _more(parts: Iterator[int]) -> bool:
    """Counts on; False once all of a message is counted.

    Raises:
        BadRequest: it has too many parts, or is no message.
    """
    try:
        so_far = next(parts, 0)
    except NoMessage as error:
        raise BadRequest(f"the message cannot be read: {error}", reason="MALFORMED") from None
    if so_far >= MOST_PARTS:
        raise BadRequest(
            f"the message has more than {MOST_PARTS} parts, all fields and members of lists "
            "together",
            reason="TOO_MANY_PARTS",
        )
    return so_far > 0


async def single_message(context: Any, seconds: float) -> bytes:
    """The bytes of a call's one message, which may be on its way for so many seconds.

    Raises:
        BadRequest: the call has none.
        grpc.aio.AbortError: see `next_message`.
    """
    data = await next_message(context, seconds)
    if data is None:
        raise BadRequest("the call ended without a message", reason="MALFORMED")
    return data


async def next_message(context: Any, seconds: float) -> bytes | None:
    """The bytes of a call's next message, which may take so many seconds; None: there is none.

    Raises:
        grpc.aio.AbortError: it did not come in time; the call was told so.
    """
    loop = asyncio.get_running_loop()
    late: list[asyncio.Task[None]] = []  # the loop itself keeps no task alive
    # Not by a timeout: gRPC still writes where a read that was cancelled has left off.
    timer = loop.call_later(
        seconds, lambda: late.append(loop.create_task(_too_late(context, seconds)))
    )
    try:
        data = await context.read()
    finally:
        timer.cancel()
    return None if data is grpc.aio.EOF else bytes(data)


async def _too_late(context: Any, seconds: float) -> None:
    error = DeadlineExceeded(f"the message did not come within {seconds:g} s")
    with suppress(grpc.aio.AbortError, grpc.aio.InternalError, grpc.aio.UsageError):
        await context.abort_with_status(error.status())
