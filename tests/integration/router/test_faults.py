"""Replicas that die, hang, refuse or come and go, and a scaler that is away."""

import asyncio
import signal
import time
from typing import Any

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router.clients import scaler
from services.router.evidence.handles import HandleSigner
from tests.integration.router.processes import Process
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    Caller,
    World,
    asking,
    hello,
    refusal,
    tokens,
    until,
)
from tests.integration.scripted_triton import Break, Fail, Hold, Refuse, Say, Script

CODES = grpc.StatusCode


class Doomed(Process):
    """A replica in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("tests.integration.scripted_triton", *arguments)

    async def listening(self) -> str:
        """Waits until it listens; returns its address."""
        return f"127.0.0.1:{int((await self.line()).removeprefix('listening '))}"

    async def received(self) -> None:
        """Waits for the next request to arrive there."""
        assert (await self.line()).startswith("received ")


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_replica_killed_before_the_first_token_is_not_noticed(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    with Doomed("--first-delay", "60") as doomed:
        await world.tell("a", await doomed.listening())
        ask = caller.ask if streaming else caller.whole
        answered = asyncio.create_task(ask())  # type: ignore[operator]
        await doomed.received()
        await world.add("b")
        doomed.kill()
        told = await answered
    assert told.text == HELLO
    assert told.summary.decision.replica == "b"
    assert await world.metric("retries_total", tier="small") >= 1
    (record,) = await world.ledger(1)
    assert (record["status"], record["replica"]) == ("OK", "b")


async def rest(call: Any) -> str:
    """All text up to the end."""
    text = ""
    while not (response := await call.read()).HasField("finished"):
        text += response.delta.text
    return text


async def test_a_replica_killed_after_the_first_token_ends_the_answer(
    world: World, caller: Caller
) -> None:
    with Doomed("--tokens", "100", "--delay", "0.05") as doomed:
        await world.tell("a", await doomed.listening())
        other = await world.add("b")
        call = caller.generate(asking())
        started = (await call.read()).started
        assert started.decision.replica == "a"
        assert (await call.read()).delta.text
        doomed.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest(call)
    told = refusal(caught.value)
    assert (told.code, told.reason) == (CODES.UNAVAILABLE, "REPLICA_LOST")
    # What gRPC says of it may name its address, which is no business of callers.
    assert told.message == "replica a was lost in the middle of the answer"
    assert told.details["RequestInfo"].request_id == started.handle
    assert other.received == []  # it was not run again
    (record,) = await world.ledger(1)
    assert (record["status"], record["replica"]) == ("UNAVAILABLE", "a")


@pytest.mark.parametrize(
    "fault",
    [
        [Break()],
        [Break(CODES.UNAVAILABLE, "GOAWAY received")],
        [Break(CODES.RESOURCE_EXHAUSTED, "no room")],
        [Refuse("Exceeds maximum queue size")],
        [Refuse("Server is stopping, scheduler for model has stopped accepting")],
        [Refuse("Request for unknown model: 'small' version 1 is not at ready state")],
        [Fail("Maximum queue size of 8 has been reached, please try again later")],
        [Fail("Stub process 'small_0_0' is not healthy.")],
    ],
    ids=str,
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_fault_before_the_first_token_is_mended_by_another_replica(
    world: World, caller: Caller, fault: Script, *, streaming: bool
) -> None:
    bad = await world.add("a", script=fault)
    good = await world.add("b")
    told = await (caller.ask() if streaming else caller.whole())
    assert told.text == HELLO
    assert told.summary.decision.replica == "b"
    assert (len(bad.received), len(good.received)) == (1, 1)


async def test_a_stream_that_ends_without_an_answer_is_a_fault(
    world: World, caller: Caller
) -> None:
    await world.add("a", script=[])
    await world.add("b")
    assert (await caller.ask()).decision.replica == "b"


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_full_replica_is_not_shunned_and_a_lost_one_is(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    one, other = await world.add("a"), await world.add("b")
    ask = caller.ask if streaming else caller.whole
    one.scripts.append([Refuse("Exceeds maximum queue size")])
    await ask()  # type: ignore[operator]
    await ask()  # type: ignore[operator]
    assert (len(one.received), len(other.received)) == (2, 1)
    one.scripts.append([Refuse("Server is stopping")])
    await ask()  # type: ignore[operator]
    await ask()  # type: ignore[operator]
    assert (len(one.received), len(other.received)) == (3, 3)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Refuse("[request id: 1] unexpected shape for input 'input_ids'"), CODES.INVALID_ARGUMENT),
        (Fail("Invalid request: the guide is not a schema"), CODES.INVALID_ARGUMENT),
        (Refuse("Request for unknown model: 'small' is not found"), CODES.INTERNAL),
        (Fail("Executor failed process requestId 1 due to the following error: x"), CODES.INTERNAL),
    ],
    ids=lambda one: getattr(one, "message", one.__class__.__name__)[:20],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_error_that_no_replica_would_mend_is_told(
    world: World, caller: Caller, fault: Refuse | Fail, code: grpc.StatusCode, *, streaming: bool
) -> None:
    bad = await world.add("a", script=[fault])
    await world.add("b")
    if streaming:
        told = await caller.refused()
        assert told.code == code
        assert told.details["RequestInfo"].request_id
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.whole()
        assert caught.value.code() == code
    assert len(bad.received) == 1
    await until(lambda: not bad.running)


async def test_an_error_in_the_middle_ends_the_answer(world: World, caller: Caller) -> None:
    for fault in (Break(), Fail("Stub process is not healthy."), Refuse("shutting down")):
        triton = await world.add("a", script=[Say(tokens("Hello")), fault])
        told = await caller.refused()
        assert (told.code, told.reason) == (CODES.UNAVAILABLE, "REPLICA_LOST")
        assert told.so_far.text == "Hello"
        handle = told.details["RequestInfo"].request_id
        assert handle == told.so_far.handle
        assert HandleSigner(b"a secret of the tests").verify(handle, "acme", "chat")
        assert len(triton.received) == 1
        world.gone("a")
        await world.eventually(lambda: world.ready("small"), 0)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_replica_silent_before_the_first_token_is_given_up(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    silent = await world.add("a", "quick", script=[Hold()])
    await world.add("b", "quick")
    ask = caller.ask if streaming else caller.whole
    told = await ask(asking("quick"))  # type: ignore[operator]
    assert told.text == HELLO
    assert told.summary.decision.replica == "b"
    await until(lambda: silent.received[0].cancelled_at)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_frozen_replica_costs_one_request_half_its_time_and_no_other_any(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    ask = caller.ask if streaming else caller.whole
    with Doomed() as frozen:
        await world.tell("a", await frozen.listening())
        await ask()  # type: ignore[operator] # it is well, and connected
        await world.add("b", max_in_flight=8)
        frozen.send(signal.SIGSTOP)
        seconds = 8.0  # the tier's own patience is far longer
        told = await ask(seconds=seconds)  # type: ignore[operator]
        assert told.summary.decision.replica == "b"
        assert told.summary.timings.total.ToTimedelta().total_seconds() >= seconds / 2
        quick = [await ask(seconds=seconds) for _ in range(10)]  # type: ignore[operator]
        crowd = [ask(seconds=seconds) for _ in range(42)]  # type: ignore[operator] # b has room for 8
        quick += await asyncio.gather(*crowd)
        frozen.send(signal.SIGCONT)
    assert {one.summary.decision.replica for one in quick} == {"b"}
    assert await world.metric("retries_total", tier="small") == 1


async def previewed(caller: Caller) -> str:
    """The replica that a request would get now."""
    request = pb.ExplainRequest.FromString(asking().SerializeToString())
    told = await caller.stub.Explain(request, metadata=caller.metadata, timeout=PATIENCE)
    return str(told.decision.replica)


async def test_a_caller_who_hangs_up_on_a_frozen_replica_warns_the_others(
    world: World, caller: Caller
) -> None:
    with Doomed() as frozen:
        await world.tell("a", await frozen.listening())
        await caller.ask()
        await world.add("b")
        frozen.send(signal.SIGSTOP)
        call = caller.generate(asking())
        await asyncio.sleep(2.0)  # what a person waits
        assert await previewed(caller) == "b"  # less is running there
        for _ in range(2):
            assert (await caller.ask()).decision.replica == "b"
        call.cancel()
        await world.eventually(lambda: world.metric("running", tier="small"), 0)
        assert await previewed(caller) == "b"  # though nothing runs on either
        frozen.send(signal.SIGCONT)


async def test_a_replica_silent_in_the_middle_is_given_up(world: World, caller: Caller) -> None:
    silent = await world.add("a", "quick", script=[Say(tokens("Hello")), Hold()])
    told = await caller.refused(asking("quick"))
    assert (told.code, told.reason) == (CODES.UNAVAILABLE, "REPLICA_LOST")
    assert told.so_far.text == "Hello"
    await until(lambda: silent.received[0].cancelled_at)


async def test_a_replica_that_goes_on_slowly_is_not_silent(world: World, caller: Caller) -> None:
    await world.add("a", "quick", script=hello(per_response=3, delay=0.15))
    assert (await caller.ask(asking("quick"))).text == HELLO


async def test_a_caller_who_reads_slowly_does_not_make_a_replica_silent(
    world: World,
) -> None:
    caller = await world.caller(**{"http2.bdp_probe": 0, "http2.lookahead_bytes": 1024})
    long = tokens("many words " * 15_000)
    await world.add("a", "quick", script=[Say(long[:-1]), Say(long[-1:], final=True)])
    call = caller.generate(asking("quick"))
    assert (await call.read()).HasField("started")
    # What is said fits no window: the router waits for us, longer than a replica may be silent.
    await asyncio.sleep(1.0)
    assert (await rest(call)).count("many words") == 15_000


async def test_a_replica_that_is_gone_gives_its_requests_to_others(
    world: World, caller: Caller
) -> None:
    leaving = await world.add("a", script=[Hold()])
    answered = asyncio.create_task(caller.ask())
    await until(lambda: leaving.received)
    await world.add("b")
    world.gone("a")
    assert (await answered).decision.replica == "b"
    await until(lambda: leaving.received[0].cancelled_at)


async def test_without_any_replica_a_request_waits_for_one(world: World, caller: Caller) -> None:
    answered = asyncio.create_task(caller.ask())

    def waits() -> bool:
        return any(one.waiting for report in world.scaler.reports[-1:] for one in report.tiers)

    await until(waits)
    await world.add("a")
    told = await answered
    assert told.text == HELLO
    assert told.summary.timings.queued.ToTimedelta().total_seconds() > 0


async def test_a_replica_back_at_its_address_is_used_again(world: World, caller: Caller) -> None:
    triton = await world.add("a")
    await caller.whole()
    port = triton.port
    await triton.stop()

    async def both_have_failed() -> bool:
        return await world.metric("retries_total", tier="small") >= 2

    answers = [asyncio.create_task(one()) for one in (caller.ask, caller.whole)]
    await world.eventually(both_have_failed, wanted=True)
    await triton.start(port)
    assert [one.text for one in await asyncio.gather(*answers)] == [HELLO, HELLO]


async def test_the_last_known_fleet_serves_while_the_scaler_is_away(
    world: World, caller: Caller
) -> None:
    await world.add("a")
    assert not (await caller.ask()).decision.fleet_stale
    await world.scaler.stop()

    async def stale() -> bool:
        told = await caller.ask()
        assert (told.text, told.decision.replica) == (HELLO, "a")
        return told.decision.fleet_stale

    await world.eventually(stale, wanted=True)
    assert await world.metric("fleet_stale") == 1
    await world.scaler.start()
    await world.eventually(stale, wanted=False)
    assert await world.metric("fleet_stale") == 0


async def test_what_runs_is_shown_while_the_scaler_is_away(world: World, caller: Caller) -> None:
    hold = Hold()
    await world.add("a", script=[hold, *hello()])
    await world.scaler.stop()
    call = asyncio.create_task(caller.ask())
    await until(lambda: world.replicas["a"].received)
    assert await world.metric("running", tier="small") == 1
    assert await world.metric("waiting", tier="small") == 0
    hold.until.set()
    await call
    await world.eventually(lambda: world.metric("running", tier="small"), 0)


async def test_a_fleet_that_changed_while_the_scaler_was_away_is_learnt(
    world: World, caller: Caller
) -> None:
    await world.add("a")
    await world.scaler.stop()
    away = world.scaler.fleet.pop("a")
    await world.scaler.start()
    await world.eventually(lambda: world.ready("small"), 0)
    world.scaler.tell(away)
    assert (await caller.ask()).decision.replica == "a"


async def test_a_lost_message_makes_the_router_ask_for_the_whole_fleet(
    world: World, caller: Caller
) -> None:
    await world.add("a")
    del world.scaler.fleet["a"]
    world.scaler.skip_a_message()
    await world.add("b")  # this one reveals the gap

    await world.eventually(lambda: previewed(caller), "b")
    assert await world.ready("small") == 1


async def test_a_scaler_that_has_fallen_silent_counts_as_away(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add("a")
    monkeypatch.setattr(scaler, "SILENCE_SECONDS", 0.2)
    world.scaler.heartbeat_seconds = 60.0

    async def stale() -> bool:
        return (await caller.ask()).decision.fleet_stale

    await world.eventually(stale, wanted=True)


async def test_the_router_shows_the_scaler_its_key(world: World) -> None:
    assert world.scaler.keys == {"Bearer pennyweight-development"}


async def test_a_caller_is_not_kept_waiting_by_a_replica_that_cannot_be_reached(
    world: World, caller: Caller
) -> None:
    await world.tell("a", "127.0.0.1:1")
    await world.add("b")
    started = time.monotonic()
    assert (await caller.ask()).decision.replica == "b"
    assert (await caller.whole()).summary.decision.replica == "b"
    assert time.monotonic() - started < PATIENCE / 2
