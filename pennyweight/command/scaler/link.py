"""How the commands about scaling reach the scaler, and what they ask of people."""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from pennyweight.attempts import away_of, errors_of, may_be_tried_again, wait_seconds
from pennyweight.channel import metadata_for, open_channel
from pennyweight.command.ending import USAGE, end
from pennyweight.command.levers import seconds_of
from pennyweight.command.options import Target
from pennyweight.errors import DeadlineExceeded, NotFound, PennyweightError
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from pennyweight.suggestions import hint_of

Word = Literal["away", "back"]

MAX_OVERRIDE_SECONDS = 30 * 86_400
MAX_FILE_BYTES = 1 << 20
MAX_TRACE_BYTES = 3 << 20
"""What fits into a message beside a scaling file."""

MINUTE_OF_DAYS = 0.001
"""Days that a trial has at least: somewhat more than a minute."""

PoolName = Annotated[
    str, typer.Argument(metavar="POOL", help="As `pennyweight pools` names it.", show_default=False)
]
ScalingFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A scaling.yaml.", show_default=False)
]
Author = Annotated[
    str | None, typer.Option(help="Who asks for it.", show_default="your name on this machine")
]
Days = Annotated[
    float,
    typer.Option(help="How many of the last recorded days to try.", min=MINUTE_OF_DAYS, max=14.0),
]


@dataclass(frozen=True)
class Scaler:
    """A scaler that answers calls."""

    stub: "scaler_pb2_grpc.ScalerServiceAsyncStub"
    metadata: tuple[tuple[str, str], ...]

    async def ask(self, method: str, request: Any, timeout_seconds: float) -> Any:
        """One call, one answer.

        Raises:
            PennyweightError: it failed; of an unknown pool with a note of those that there are.
        """
        call = getattr(self.stub, method)(request, timeout=timeout_seconds, metadata=self.metadata)
        try:
            return await _answer(call)
        except NotFound as error:
            if error.reason == "POOL_UNKNOWN":
                names = await self.pools(timeout_seconds)
                error.add_note(hint_of(request.pool, names, "There are"))
            raise

    async def require(self, pool: str, timeout_seconds: float) -> None:
        """Ends the command where there is no such pool."""
        names = await self.pools(timeout_seconds)
        if pool not in names:
            end(f"There is no pool named {pool}.", hint_of(pool, names, "There are"))

    async def stream(
        self, method: str, request: Any, timeout_seconds: float | None
    ) -> AsyncIterator[Any]:
        """One call, many answers.

        Raises:
            PennyweightError: it failed.
        """
        call = getattr(self.stub, method)(request, timeout=timeout_seconds, metadata=self.metadata)
        try:
            async with errors_of(call):
                async for message in call:
                    yield message
        finally:
            call.cancel()

    async def follow(
        self,
        method: str,
        request: Any,
        timeout_seconds: float | None,
        told: Callable[[Word], None],
    ) -> AsyncIterator[Any]:
        """One call without an end: made again where its connection, or the scaler, goes away.

        Each call begins with what holds, so that some of it may come twice. Servers end every
        connection after a while (``max_connection_age``); of that nothing is told.

        Args:
            method: of the call.
            request: of the call.
            timeout_seconds: seconds for all of it; None: for ever.
            told: hears once that the scaler is away, and once that it is back.

        Raises:
            PennyweightError: the first call failed, or a later one for what no waiting mends.
        """
        clock = asyncio.get_running_loop().time
        end = None if timeout_seconds is None else clock() + timeout_seconds
        failures, answered = 0, False
        while end is None or clock() < end:
            left = None if end is None else end - clock()
            try:
                async for message in self.stream(method, request, left):
                    if failures > 1:
                        told("back")
                    failures, answered = 0, True
                    yield message
            except DeadlineExceeded:
                if end is None:
                    raise
                return
            except PennyweightError as error:
                if not answered or not _may_come_back(error):
                    raise
            failures += 1
            if failures == 1:  # a connection of its age: the next one is there at once
                continue
            if failures == 2:  # noqa: PLR2004
                told("away")
            delay = wait_seconds(failures, random.random())  # noqa: S311
            await asyncio.sleep(delay if end is None else min(delay, max(0.0, end - clock())))

    async def pools(self, timeout_seconds: float) -> Sequence[str]:
        """Names of the pools."""
        call = self.stub.ListPools(
            pb.ListPoolsRequest(), timeout=timeout_seconds, metadata=self.metadata
        )
        return [pool.name for pool in (await _answer(call)).pools]


@asynccontextmanager
async def reach(target: Target) -> AsyncIterator[Scaler]:
    """The scaler at a target."""
    metadata = metadata_for(target.address)
    channel = open_channel(
        target.address,
        tls_ca=target.tls_ca,
        tls_certificate=target.tls_certificate,
        tls_key=target.tls_key,
    )
    async with channel:
        yield Scaler(scaler_pb2_grpc.ScalerServiceStub(channel), metadata)


def _may_come_back(error: PennyweightError) -> bool:
    """Whether a stream that ended so may go on with another call."""
    too_slow = error.reason == "WATCHER_TOO_SLOW"  # it has missed some, and begins anew
    return too_slow or may_be_tried_again(away_of(error))


async def _answer(call: Awaitable[Any]) -> Any:
    async with errors_of(call):
        return await call


def text_of(file: Path) -> str:
    """A scaling file's text; ends the command where it is none."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        end(f"{file} cannot be read: {error.strerror}.", code=USAGE)
    except UnicodeDecodeError:
        end(f"{file} is not UTF-8 text.", code=USAGE)
    if not text.strip():
        end(f"{file} is empty.", code=USAGE)
    if len(data) > MAX_FILE_BYTES:
        end(f"{file} has {len(data):,} bytes.", f"Most are {MAX_FILE_BYTES:,}.", code=USAGE)
    return text


def trace_of(file: Path) -> bytes:
    """A trace; ends the command where it cannot be sent."""
    try:
        data = file.read_bytes()
    except OSError as error:
        end(f"{file} cannot be read: {error.strerror}.", code=USAGE)
    if not data.strip():
        end(f"{file} is empty.", code=USAGE)
    if len(data) > MAX_TRACE_BYTES:
        hint = f"Most are {MAX_TRACE_BYTES:,}: send a part of it, or rates by window."
        end(f"{file} has {len(data):,} bytes.", hint, code=USAGE)
    return data


def lasting_of(given: str) -> float:
    """Seconds of `--for`; ends the command where that is no time for an override."""
    seconds = seconds_of(given)
    if not 0.0 < seconds <= MAX_OVERRIDE_SECONDS:
        end(f"--for {given} is not above 0 and at most 30 days.", code=USAGE)
    return seconds


def moment_of(given: str, now: dt.datetime, option: str) -> Timestamp:
    """A time that a person wrote: RFC 3339, or how long ago; ends the command on others.

    So it does on times to come, of which nothing is on record.

    A whole second is meant to its end, as times are shown without their fractions.
    """
    result = Timestamp()
    if given[:1].isdigit() and given[-1:] in "smhd":
        result.FromDatetime(now - dt.timedelta(seconds=seconds_of(given)))
        return result
    try:
        found = dt.datetime.fromisoformat(given.removesuffix(" UTC"))
    except ValueError:
        hint = "Write it as 2026-11-29T01:15:00Z, or as how long ago: 10m."
        end(f"{option} {given} is no time.", hint, code=USAGE)
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    if found > now:
        end(f"{option} {given} is in the future.", code=USAGE)
    part = dt.timedelta(microseconds=999_999 if "." not in given else 1)
    result.FromDatetime(found + part)  # times here have at most six digits, on the wire nine
    return result
