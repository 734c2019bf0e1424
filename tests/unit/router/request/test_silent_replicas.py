"""Replicas that freeze: how long a request waits for one, where it goes, and who avoids it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from services.common.errors import Unavailable
from services.router.fleet.replica import Replica, State
from services.router.policy.calibration import Rung
from services.router.policy.line import Priority
from services.router.policy.routes import Route
from services.router.ports import Piece, ReplicaFailed
from tests.making.policies import ladder, quality, route
from tests.making.walking import Cache, Engine, Listener, Run, Way

SURE = -0.125
LEFT = 30.0
"""Seconds that `Way` gives a request."""


class Frozen(Run):
    """Says its chunks, then nothing for as long as anybody waits."""

    def __init__(self, *chunks: str) -> None:
        super().__init__([*chunks, ""], SURE)
        self.waited = 0.0
        self.way: Way

    async def read(self, timeout_seconds: float) -> Piece:
        if len(self.chunks) > 1:
            return await super().read(timeout_seconds)
        await asyncio.sleep(0)
        self.waited = timeout_seconds
        self.way.now += timeout_seconds
        raise ReplicaFailed("silent", lost=True, silent=True)


def small(**changes: Any) -> Route:
    return route("chat", *ladder("small", **changes))


def scene(*runs: Run, of: Route | None = None, streaming: bool = False, **tiers: list[Run]) -> Way:
    """A request for a whole answer, or a streamed one, where the small tier has two replicas."""
    engine = Engine({"small": list(runs)} | tiers)
    way = Way(of or small(), engine, cache=Cache(lease=""), streaming=streaming)
    first = way.replicas[0]
    way.fleet.update(
        [Replica("small-2", "small", first.model, first.precision, "b:1", State.READY, 8)]
    )
    for run in [*runs, *[run for more in tiers.values() for run in more]]:
        if isinstance(run, Frozen):
            run.way = way
    return way


def replicas(way: Way) -> list[str]:
    return [attempt.replica for attempt in way.state.attempts]


@pytest.mark.parametrize(("streaming", "patience"), [(False, 15.0), (True, 15.0)])
async def test_a_frozen_replica_leaves_time_for_another(
    *, streaming: bool, patience: float
) -> None:
    frozen = Frozen()
    way = scene(frozen, Run(["hi"]), streaming=streaming)
    assert "hi" in await way.go()
    assert replicas(way) == ["small", "small-2"]
    assert frozen.waited == patience
    assert way.now <= way.state.context.until


async def test_after_its_first_silence_all_others_avoid_it_and_later_one_tries() -> None:
    way = scene(Frozen(), *[Run(["hi"]) for _ in range(44)])
    await way.go()
    for _ in range(42):
        way.state = way.begin()
        await way.go()
        assert replicas(way) == ["small-2"]
    way.now += 20.0
    way.state = way.begin()
    await way.go()
    assert replicas(way) == ["small"]
    assert way.fleet.can_answer(way.state.context.route.top_tier, avoid=["small-2"])


async def test_the_one_who_tries_it_again_loses_little_time() -> None:
    frozen = Frozen()
    way = scene(Frozen(), Run(["hi"]), frozen, Run(["hi"]))
    await way.go()
    way.now += 20.0
    way.load.add("small", way.now, first_text=0.5, decode_seconds=0.0, tokens=9)
    way.state = way.begin()
    await way.go()
    assert replicas(way) == ["small", "small-2"]
    assert frozen.waited == 2.0


async def test_time_lost_on_one_replica_says_nothing_about_how_long_answers_take() -> None:
    again = Frozen()
    way = scene(Frozen(), Run(["hi"]), again, Run(["hi"]))
    await way.go()
    way.now += 1.0
    assert way.load.slow_run_seconds("small", way.now) == 0.0
    way.state = way.begin()
    way.fleet.succeeded(way.replicas[0])  # it is held to be well again
    await way.go()
    assert again.waited == 15.0


async def test_one_try_alone_is_made_of_a_replica_that_was_silent() -> None:
    frozen = Frozen()
    way = scene(Frozen(), Run(["hi"]), frozen, Run(["hi"]), Run(["hi"]))
    await way.go()
    way.now += 20.0
    for wanted in (["small", "small-2"], ["small-2"]):
        way.state = way.begin()
        await way.go()
        assert replicas(way) == wanted
        way.now += 20.0  # the second silence in a row is held against it for longer


async def test_where_no_other_can_answer_the_silent_one_has_all_the_time_of_its_tier() -> None:
    frozen = Frozen()
    way = scene(frozen, Run(["hi"]))
    way.fleet.update([replace(way.replicas[0], id="small-2", state=State.GONE)])
    await way.go()
    assert frozen.waited == 30.0


async def test_answers_that_take_long_are_waited_for() -> None:
    frozen = Frozen()
    way = scene(frozen, Run(["hi"]))
    way.load.add("small", way.now, first_text=12.0, decode_seconds=0.0, tokens=9)
    await way.go()
    assert frozen.waited == 24.0


@pytest.mark.parametrize("busy", [True, False])
async def test_a_caller_in_a_hurry_goes_elsewhere_and_proves_nothing(*, busy: bool) -> None:
    way = scene(*[run for _ in range(4) for run in (Frozen(), Run(["hi"]))])
    tier, until = way.state.context.route.top_tier, way.clock() + LEFT
    for _ in range(2 * busy):  # something runs on each of them all the time
        await way.fleet.place(tier, Priority.INTERACTIVE, avoid=(), until=until)
    for number in range(3):  # each is silent for half a second
        way.state = way.begin()
        way.state.context = replace(way.state.context, until=way.now + 1.0)
        await way.go()
        assert replicas(way) == ["small", "small-2"]
        way.now += 0.25
        avoided = busy and number == 2  # one that was asked for nothing was not silent meanwhile
        assert way.fleet.can_answer(tier, avoid=["small-2"]) is not avoided
    # Since then it has not said a word.
    assert way.replicas[0].quiet_since == (1000.0 if busy else None)
    assert len(way.runner.trouble.marks) == 0  # each of them waited for a moment alone


async def test_hours_without_requests_are_no_silence() -> None:
    way = scene(Frozen(), Run(["hi"]), Frozen(), Run(["hi"]))
    for _ in range(2):
        way.state = way.begin()
        way.state.context = replace(way.state.context, until=way.now + 1.0)
        await way.go()
        assert replicas(way) == ["small", "small-2"]
        assert way.fleet.can_answer(way.state.context.route.top_tier, avoid=["small-2"])
        way.now += 3600.0


@pytest.mark.parametrize(("word_at", "silent_for"), [(None, 5.0), (6.0, 2.0), (4.0, 5.0)])
def test_a_word_counts_though_nobody_has_read_it(word_at: float | None, silent_for: float) -> None:
    replica, call = Replica("a", "small", "small", "int8", "a:1", State.READY, 8), Run([])
    replica.take()
    replica.calls.add(call)
    call.heard_at = 1.0
    assert replica.silence(5.0) == 5.0
    call.heard_at = word_at
    assert 10.0 - replica.silence(8.0) == silent_for


def test_a_word_of_before_ends_no_silence() -> None:
    replica = Replica("a", "small", "small", "int8", "a:1", State.READY, 8)
    replica.take()
    replica.silence(5.0)
    replica.heard(4.0)
    assert replica.quiet_since == 5.0
    replica.heard(6.0)
    assert replica.quiet_since is None


@pytest.mark.parametrize("silent", [True, False])
async def test_a_trial_that_spoke_is_decided_though_its_caller_goes(*, silent: bool) -> None:
    first = Frozen() if silent else Run([ReplicaFailed("died", lost=True)], SURE)
    way = scene(first, Run(["hi"]), Run(["a word ", "and more", ""]), streaming=True)
    await way.go()
    assert not way.replicas[0].breaker.closed
    way.now += 20.0
    way.state = way.begin()
    await way.hang_up(Listener(blocks_at=2))
    assert replicas(way) == ["small"]
    assert way.replicas[0].breaker.closed


async def test_a_word_of_a_trial_is_enough_for_one_that_was_silent() -> None:
    way = scene(Frozen(), Run(["hi"]), Run(["a word ", "and more", ""]), streaming=True)
    await way.go()
    way.now += 20.0
    way.state, listener = way.begin(), Listener(blocks_at=1)
    answering = asyncio.create_task(way.answer(listener))
    await listener.blocked.wait()
    assert way.replicas[0].breaker.closed
    answering.cancel()
    await asyncio.wait((answering,))


async def test_a_word_ends_a_silence() -> None:
    way = scene(Frozen(), Run(["hi"]), Run(["hi"]))
    way.state.context = replace(way.state.context, until=way.now + 1.0)
    await way.go()
    way.state = way.begin()
    await way.go()
    assert replicas(way) == ["small"]
    assert way.replicas[0].quiet_since is None


@pytest.mark.parametrize(("slow", "avoided"), [(1.0, True), (4.0, False), (None, False)])
async def test_those_who_hang_up_on_a_silent_replica_say_so_too(
    *, slow: float | None, avoided: bool
) -> None:
    run = Run(["hi"])

    async def silent(timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    run.read = silent  # type: ignore[method-assign]
    way = scene(run)
    if slow is not None:
        way.load.add("small", way.now, first_text=slow, decode_seconds=0.0, tokens=9)
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.engine.started:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    way.now += 5.0
    answering.cancel()
    await asyncio.wait((answering,))
    await way.rest()
    tier = way.state.context.route.top_tier
    assert way.fleet.can_answer(tier, avoid=["small-2"]) is not avoided


async def test_one_that_answers_the_wish_to_stop_is_not_silent() -> None:
    run = Run(["hi"])

    async def silent(timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    async def stop() -> None:
        run.final = True

    run.read, run.stop = silent, stop  # type: ignore[method-assign]
    way = scene(run)
    way.load.add("small", way.now, first_text=1.0, decode_seconds=0.0, tokens=9)
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.engine.started:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    way.now += 5.0
    answering.cancel()
    await asyncio.wait((answering,))
    await way.rest()
    assert way.fleet.can_answer(way.state.context.route.top_tier, avoid=["small-2"])
    assert len(way.runner.trouble.marks) == 0


async def test_a_lower_tier_that_is_silent_gives_way_without_another_try() -> None:
    told = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))
    frozen = Frozen()
    way = scene(frozen, of=told, large=[Run(["large"], SURE)])
    way.fleet.update([replace(way.replicas[0], id="small-2", state=State.GONE)])
    assert await way.go() == ["started", "large"]
    assert way.engine.order == ["small", "large"]
    assert frozen.waited == LEFT / 2


async def test_a_pause_in_an_answer_that_was_begun_is_the_tiers() -> None:
    frozen = Frozen("one ")
    way = scene(frozen, of=small(idle_seconds=25.0), streaming=True)
    with pytest.raises(Unavailable) as raised:
        await way.go()
    assert raised.value.reason == "REPLICA_LOST"
    assert frozen.waited == 25.0
