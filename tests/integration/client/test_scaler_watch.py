"""``scaler watch`` goes on where its connection or the scaler ends, and tells each thing once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pennyweight.command.options import Target
from pennyweight.command.scaler.link import Word, reach
from pennyweight.errors import NotFound, Unavailable
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from tests.integration.client.running import pennyweight
from tests.integration.client.scripted_scaler import serving

AGED = (("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 100))


class Scripted(scaler_pb2_grpc.ScalerServiceServicer):
    """One pool, whose decision holds."""

    def __init__(self) -> None:
        self.watched = 0
        self.refuses = False

    async def ListPools(self, request: Any, context: Any) -> pb.ListPoolsResponse:  # noqa: N802
        return pb.ListPoolsResponse(pools=[pb.Pool(name="large")])

    async def WatchDecisions(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchDecisionsResponse]:
        self.watched += 1
        if self.refuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        held = pb.Constraint(bound=pb.BOUND_MAX)
        decision = pb.Decision(pool="large", size=3, why="so", constraints=[held])
        decision.decided_at.FromSeconds(self.watched)
        yield pb.WatchDecisionsResponse(decision=decision)
        await asyncio.Event().wait()


async def test_a_connection_that_ends_of_its_age_shows_nothing() -> None:
    servicer = Scripted()
    async with serving(servicer, 0, *AGED) as port:
        where = ("--address", f"127.0.0.1:{port}")
        ended = await pennyweight("scaler", "watch", "large", "--for", "3s", *where)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "1970-01-01 00:00:01 UTC large 0 → 3 so\n"
    assert servicer.watched > 2


async def test_a_restart_is_told_once_and_is_no_end() -> None:
    servicer, told = Scripted(), list[Word]()
    away = asyncio.Event()

    def hear(word: Word) -> None:
        told.append(word)
        away.set()

    seen = asyncio.Queue[pb.WatchDecisionsResponse]()

    async def follow(port: int) -> None:
        async with reach(Target(f"127.0.0.1:{port}")) as scaler:
            request = pb.WatchDecisionsRequest()
            async for message in scaler.follow("WatchDecisions", request, None, hear):
                seen.put_nowait(message)

    async with serving(servicer) as port:
        following = asyncio.create_task(follow(port))
        await seen.get()
    async with asyncio.timeout(20):
        await away.wait()
        async with serving(servicer, port):
            await seen.get()
            assert told == ["away", "back"]
            servicer.refuses = True
        async with serving(servicer, port):
            with pytest.raises(NotFound, match="gone"):  # which no waiting mends
                await following


async def test_what_never_answered_is_an_error_at_once() -> None:
    async with serving(Scripted()) as port:
        pass
    async with reach(Target(f"127.0.0.1:{port}")) as scaler:
        request = pb.WatchDecisionsRequest()
        messages = scaler.follow("WatchDecisions", request, 20, lambda _: None)
        with pytest.raises(Unavailable):
            await anext(messages)


async def test_a_pool_that_is_none_is_named_with_those_there_are() -> None:
    async with serving(Scripted()) as port:
        where = ("--address", f"127.0.0.1:{port}")
        ended = await pennyweight("scaler", "watch", "lage", "--for", "9s", *where)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == ("There is no pool named lage.\nDid you mean large? There are: large.\n")
