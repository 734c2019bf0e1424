"""One tenant's streams of decisions leave places for the others and for operators."""

from contextlib import AsyncExitStack, aclosing

import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.caller_turns import CallerTurns
from services.common.credentials import Identity, Role
from services.common.errors import Overloaded
from services.scaler.history.decisions import DecisionLog
from services.scaler.policy.sizing.views import Decision
from services.scaler.watching import MAX_WATCHERS
from services.scaler.wire.decisions import MOST_OF_ONE, DecisionCalls
from tests.unit.scaler.history.test_decisions import log_in

LOUD, QUIET = Identity("loud", Role.CALLER), Identity("quiet", Role.CALLER)
OPERATOR = Identity("loud", Role.OPERATOR)


def kept(folder: "object") -> DecisionLog:
    log: DecisionLog = log_in(folder)
    log.take("p", Decision(size=1, before=1), 1.0)
    return log


async def test_one_tenant_has_few_and_gets_them_back(tmp_path: "object") -> None:
    calls = DecisionCalls(kept(tmp_path), CallerTurns())
    request = pb.WatchDecisionsRequest()
    open_ = [calls.watch_decisions(request, LOUD) for _ in range(MOST_OF_ONE)]
    for stream in open_:
        assert (await anext(stream)).decision.pool == "p"
    with pytest.raises(Overloaded, match="enough for one tenant"):
        await anext(calls.watch_decisions(request, LOUD))
    for other in (QUIET, OPERATOR):
        async with aclosing(calls.watch_decisions(request, other)) as stream:
            assert (await anext(stream)).decision.pool == "p"
    await open_.pop().aclose()
    async with aclosing(calls.watch_decisions(request, LOUD)) as stream:
        assert (await anext(stream)).decision.pool == "p"
    for stream in open_:
        await stream.aclose()


async def test_256_streams_of_one_operator_shut_nobody_out(tmp_path: "object") -> None:
    calls = DecisionCalls(kept(tmp_path), CallerTurns())
    request = pb.WatchDecisionsRequest()
    loud = Identity("ops", Role.OPERATOR, key_id="11111111")
    async with AsyncExitStack() as stack:

        async def watched(identity: Identity) -> str:
            stream = calls.watch_decisions(request, identity)
            await stack.enter_async_context(aclosing(stream))
            return (await anext(stream)).decision.pool

        for _ in range(MAX_WATCHERS):
            await watched(loud)
        with pytest.raises(Overloaded):
            await watched(loud)
        for other in (QUIET, Identity("ops", Role.OPERATOR, key_id="22222222")):
            assert await watched(other) == "p"


async def test_an_operators_searches_are_its_keys_own(tmp_path: "object") -> None:
    keys = [Identity("ops", Role.OPERATOR, key_id=name) for name in ("1", "2")]
    assert len({one.share for one in (*keys, LOUD, QUIET)}) == 4
    assert Identity("acme", Role.CALLER, key_id="3").share == "acme"
