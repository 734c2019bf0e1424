"""Places on replicas: whatever happens to those who want one, no place is lost or given twice."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.common.errors import DeadlineExceeded, Overloaded, ServiceError, Unavailable
from services.router.fleet.fleet import Fleet
from services.router.fleet.place import Place
from services.router.fleet.replica import WHOLE, Replica, State
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.policy.routes import Tier
from services.router.ports import ReplicaFailed
from tests.making.clock import FakeClock
from tests.making.policies import policies, route, tier

SMALL = tier("small", queue_size=3, queue_seconds=30.0)
INTERACTIVE = Priority.INTERACTIVE


class Scene:
    """A fleet of one tier."""

    def __init__(self, small: Tier = SMALL, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry, self.clock = CollectorRegistry(), clock
        self.forgotten: list[str] = []
        self.tier = small
        self.fleet = Fleet(
            policies(route("chat", small)),
            Metrics(self.registry),
            spawn=lambda work: work.close(),
            forget=self.forgotten.append,
            clock=clock,
        )

    def report(self, *names: str, **changes: Any) -> None:
        self.fleet.update([reported(name, **changes) for name in names])

    async def acquire(
        self,
        priority: Priority = INTERACTIVE,
        *,
        avoid: Collection[str] = (),
        seconds: float = 60.0,
        tenant: str = "acme",
    ) -> Place:
        until = self.clock() + seconds
        return await self.fleet.place(self.tier, priority, avoid=avoid, until=until, tenant=tenant)

    def waiting(self) -> int:
        (load,) = self.fleet.snapshot()
        return load.waiting

    def in_flight(self) -> dict[str, int]:
        (load,) = self.fleet.snapshot()
        assert load.running == sum(replica.in_flight for replica in load.replicas)
        return {replica.id: replica.in_flight for replica in load.replicas}

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pennyweight_router_{name}", labels)


class Run:
    """What runs on a replica."""

    def __init__(self) -> None:
        self.gave_up = ""

    def give_up(self, failure: ReplicaFailed) -> None:
        self.gave_up = str(failure)


def reported(name: str, **changes: Any) -> Replica:
    replica = Replica(
        id=name,
        tier="small",
        model="small",
        precision="int8",
        address=f"{name}:1",
        state=State.READY,
        max_in_flight=1,
    )
    return replace(replica, **changes)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_place_is_taken_at_once_and_given_back() -> None:
    scene = Scene()
    scene.report("a", "b")
    first, second = await scene.acquire(), await scene.acquire()
    assert {first.replica.id, second.replica.id} == {"a", "b"}
    assert scene.in_flight() == {"a": 1, "b": 1}
    first.give_back()
    second.give_back()
    assert scene.in_flight() == {"a": 0, "b": 0}


async def test_who_waits_gets_the_place_that_is_given_back() -> None:
    scene = Scene()
    scene.report("a")
    held = await scene.acquire()
    batch = asyncio.create_task(scene.acquire(Priority.BATCH))
    person = asyncio.create_task(scene.acquire(Priority.INTERACTIVE))
    await settle()
    assert scene.waiting() == 2
    held.give_back()
    await settle()
    assert person.done()
    assert not batch.done()
    (await person).give_back()
    assert (await batch).replica.id == "a"


async def test_a_newcomer_does_not_overtake_the_line() -> None:
    scene = Scene()
    scene.report("a")
    held = await scene.acquire()
    waiting = asyncio.create_task(scene.acquire())
    await settle()
    held.give_back()  # the place is promised before the waiting one has run again
    newcomer = asyncio.create_task(scene.acquire())
    await settle()
    assert waiting.done()
    assert not newcomer.done()
    newcomer.cancel()


async def test_a_replica_that_becomes_ready_serves_the_line() -> None:
    scene = Scene()
    waiting = [asyncio.create_task(scene.acquire()) for _ in range(3)]
    await settle()
    scene.report("a", state=State.STARTING)
    await settle()
    assert not any(one.done() for one in waiting)
    scene.report("a", max_in_flight=2)
    await settle()
    assert [one.done() for one in waiting] == [True, True, False]
    scene.report("a", max_in_flight=3)
    assert (await waiting[2]).replica.id == "a"


async def test_a_draining_replica_gets_nothing_new() -> None:
    scene = Scene()
    scene.report("a", "b", max_in_flight=8)
    scene.report("a", state=State.DRAINING, max_in_flight=8)
    assert {(await scene.acquire()).replica.id for _ in range(8)} == {"b"}
    assert scene.fleet.ready("small") == 1


async def test_a_full_line_turns_away_and_says_when_to_come_back() -> None:
    scene = Scene()
    waiting = [asyncio.create_task(scene.acquire()) for _ in range(3)]
    await settle()
    with pytest.raises(Overloaded) as caught:
        await scene.acquire()
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("QUEUE_FULL", 1.0)
    assert scene.metric("shed_total", tier="small") == 1
    for one in waiting:
        one.cancel()


async def test_a_more_important_request_takes_the_place_of_the_youngest_least_important() -> None:
    scene = Scene()
    kinds = (Priority.BATCH, Priority.BACKGROUND, Priority.BACKGROUND)
    waiting = [asyncio.create_task(scene.acquire(kind)) for kind in kinds]
    await settle()
    important = asyncio.create_task(scene.acquire(Priority.CRITICAL))
    await settle()
    assert [one.done() for one in waiting] == [False, False, True]
    with pytest.raises(Overloaded):
        await waiting[2]
    scene.report("a")
    assert (await important).replica.id == "a"
    for one in waiting:
        one.cancel()


async def test_who_hangs_up_in_the_line_leaves_it() -> None:
    scene = Scene()
    waiting = asyncio.create_task(scene.acquire())
    await settle()
    waiting.cancel()
    await settle()
    assert scene.waiting() == 0


async def test_a_place_that_comes_when_its_taker_has_just_gone_goes_to_the_next() -> None:
    scene = Scene()
    scene.report("a")
    held = await scene.acquire()
    gone = asyncio.create_task(scene.acquire())
    following = asyncio.create_task(scene.acquire())
    await settle()
    held.give_back()  # promised to the first in the line
    gone.cancel()
    await settle()
    assert gone.cancelled()
    assert (await following).replica.id == "a"
    assert scene.in_flight() == {"a": 1}


async def test_an_eviction_of_somebody_who_has_just_hung_up_hurts_nobody() -> None:
    scene = Scene(replace(SMALL, queue_size=1))
    gone = asyncio.create_task(scene.acquire(Priority.BATCH))
    await settle()
    important = asyncio.create_task(scene.acquire(Priority.CRITICAL))
    gone.cancel()  # the newcomer runs first and finds a ticket whose holder is gone
    await settle()
    assert gone.cancelled()
    assert not important.done()
    scene.report("a")
    assert (await important).replica.id == "a"
    assert scene.in_flight() == {"a": 1}


async def test_a_deadline_that_passes_in_the_line_is_told_as_such() -> None:
    scene = Scene()
    with pytest.raises(DeadlineExceeded) as caught:
        await scene.acquire(seconds=0.005)
    assert caught.value.reason == "QUEUED_TOO_LONG"
    assert scene.waiting() == 0


async def test_a_wait_beyond_what_the_tier_allows_is_unavailable() -> None:
    scene = Scene(replace(SMALL, queue_seconds=0.005))
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(scene.acquire(), 10.0)
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("NO_REPLICA", 5.0)


async def test_a_deadline_that_passes_when_the_tiers_patience_ends_is_told_as_such() -> None:
    patience = 2.0**-7  # exact, so that both end in the same moment
    scene = Scene(replace(SMALL, queue_seconds=patience), clock=FakeClock().time)
    with pytest.raises(DeadlineExceeded):
        await scene.acquire(seconds=patience)


async def test_a_request_goes_elsewhere_after_a_failure_and_back_only_at_need() -> None:
    scene = Scene()
    scene.report("a", "b")
    assert (await scene.acquire(avoid={"a"})).replica.id == "b"
    assert (await scene.acquire(avoid={"a"})).replica.id == "a"


async def test_a_failing_replica_is_avoided_until_it_answers() -> None:
    scene = Scene()
    scene.report("a", "b", max_in_flight=3)
    failing = await scene.acquire()
    assert failing.replica.id == "a"
    scene.fleet.failed(failing.replica)
    failing.give_back()
    taken = [await scene.acquire() for _ in range(3)]
    assert {one.replica.id for one in taken} == {"b"}
    assert scene.fleet.preview("small") == "a"  # nothing else has room
    taken[0].give_back()
    assert scene.fleet.preview("small") == "b"
    scene.fleet.succeeded(failing.replica)
    assert scene.fleet.preview("small") == "a"


async def test_the_room_of_others_is_waited_for_rather_than_a_silent_replica_taken() -> None:
    scene = Scene(clock=FakeClock().time)
    scene.report("a", "b", max_in_flight=2)
    silent = await scene.acquire()
    assert silent.replica.id == "a"
    scene.fleet.failed(silent.replica, silent=True)
    held = [await scene.acquire() for _ in range(2)]
    assert {one.replica.id for one in held} == {"b"}
    assert scene.fleet.preview("small") == ""
    waits = asyncio.create_task(scene.acquire())
    await settle()
    assert scene.waiting() == 1
    held[0].give_back()
    assert (await waits).replica.id == "b"
    # Who has failed on the other tries that once more, and does not wait in vain here.
    held[1].give_back()
    assert (await scene.acquire(avoid={"b"})).replica.id == "b"


@pytest.mark.parametrize("others", [(), ("b",)])
async def test_a_silent_replica_is_the_last_resort_where_no_other_can_answer(
    others: tuple[str, ...],
) -> None:
    scene = Scene(clock=FakeClock().time)
    scene.report("a", *others, max_in_flight=2)
    for name in ("a", *others):
        place = await scene.acquire(avoid={"a", "b"} - {name})
        assert place.replica.id == name
        scene.fleet.failed(place.replica, silent=True)
    assert scene.fleet.preview("small")


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.25), (0.5, 0.375)])
async def test_chance_spreads_for_how_long_a_failing_replica_is_avoided(
    chance: float, seconds: float
) -> None:
    now = [10.0]
    fleet = Fleet(
        policies(route("chat", SMALL)),
        Metrics(CollectorRegistry()),
        spawn=lambda work: work.close(),
        clock=lambda: now[0],
        chance=lambda: chance,
    )
    failing, other = reported("a", max_in_flight=9), reported("b", max_in_flight=9, in_flight=1)
    fleet.update([failing, other])
    assert fleet.preview("small") == "a"
    fleet.failed(failing)
    now[0] = 10.0 + seconds - 0.01
    assert fleet.preview("small") == "b"
    now[0] = 10.0 + seconds
    assert fleet.preview("small") == "a"


async def test_a_replica_that_has_rested_gets_one_trial_at_a_time() -> None:
    clock = FakeClock()
    scene = Scene(clock=clock.time)
    scene.report("a", "b", max_in_flight=8)
    failing = await scene.acquire()
    scene.fleet.failed(failing.replica)
    failing.give_back()
    clock.advance(WHOLE.rest.cap_seconds)
    assert [(await scene.acquire()).replica.id for _ in range(3)] == ["a", "b", "b"]
    clock.advance(WHOLE.rest.cap_seconds)  # nobody has decided that trial
    assert (await scene.acquire()).replica.id == "a"


async def test_a_replica_that_is_gone_gives_up_its_runs() -> None:
    scene = Scene()
    scene.report("a")
    place, run = await scene.acquire(), Run()
    replica = place.replica
    replica.calls.add(run)
    scene.report("a", state=State.GONE)
    assert run.gave_up == "the replica is gone"
    assert scene.forgotten == ["a:1"]
    assert scene.in_flight() == {}
    place.give_back()  # the run's end gives the place back all the same
    assert replica.in_flight == 0


async def test_replace_takes_the_whole_fleet_and_keeps_what_runs() -> None:
    scene = Scene()
    scene.report("a", "b")
    held = [await scene.acquire(), await scene.acquire()]
    scene.fleet.replace([reported("b", max_in_flight=5), reported("c")])
    assert scene.in_flight() == {"b": 1, "c": 0}
    assert scene.forgotten == ["a:1"]
    for one in held:
        one.give_back()
    assert scene.in_flight() == {"b": 0, "c": 0}


async def test_strangers_are_left_out() -> None:
    scene = Scene()
    scene.fleet.update(
        [
            reported("x", tier="unknown"),
            reported("y", model="other"),
            reported("z", precision="fp8"),
        ]
    )
    scene.report("never there", state=State.GONE)
    assert scene.in_flight() == {}


async def test_the_fleet_is_stale_until_told_otherwise() -> None:
    scene = Scene()
    assert scene.fleet.stale
    assert scene.metric("fleet_stale") == 1
    scene.fleet.set_stale(stale=False)
    assert not scene.fleet.stale
    assert scene.metric("fleet_stale") == 0


async def test_replicas_are_counted_by_state() -> None:
    scene = Scene()
    scene.report("a", "b")
    scene.report("c", state=State.STARTING)
    scene.report("b", state=State.GONE)
    assert scene.metric("replicas", tier="small", state="ready") == 1
    assert scene.metric("replicas", tier="small", state="starting") == 1
    assert scene.metric("replicas", tier="small", state="draining") == 0


# --- tenants ---------------------------------------------------------------------------------


async def flood(scene: Scene, tenant: str, count: int) -> list[asyncio.Task[Place]]:
    asked = [
        asyncio.create_task(scene.acquire(Priority.CRITICAL, tenant=tenant)) for _ in range(count)
    ]
    await settle()
    return asked


async def drop(asked: Collection[asyncio.Task[Place]]) -> None:
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("places", [1, 3])
async def test_a_flood_of_one_tenant_refuses_no_other_and_leaves_it_a_turn(
    places: int,
) -> None:
    scene = Scene(tier("small", queue_size=8, queue_seconds=30.0))
    scene.report("a", max_in_flight=places)
    asked = await flood(scene, "loud", 40)
    for _ in range(20):
        quiet = asyncio.create_task(scene.acquire(tenant="quiet"))
        await settle()
        assert not quiet.done()  # waits, is not refused
        asked += await flood(scene, "loud", 10)
        for _ in range(2):  # the other's turn may come first, once
            if not quiet.done():
                held = [one for one in asked if one.done() and one.exception() is None]
                assert len(held) == places
                asked.remove(held[0])
                held[0].result().give_back()
                await settle()
        assert quiet.done()
        (await quiet).give_back()
        await settle()
    await drop(asked)


async def test_a_tenant_alone_may_have_every_place_and_the_whole_line() -> None:
    scene = Scene()
    scene.report("a", "b")
    asked = await flood(scene, "loud", 5)
    assert sum(scene.in_flight().values()) == 2
    assert scene.waiting() == 3
    await drop(asked)


async def test_a_tier_may_keep_a_part_of_it_free_of_any_one_tenant() -> None:
    scene = Scene(tier("small", queue_size=4, queue_seconds=30.0, tenant_share=0.5))
    scene.report("a", "b", max_in_flight=2)
    asked = await flood(scene, "loud", 5)
    assert sum(scene.in_flight().values()) == 2  # though four are free
    assert scene.waiting() == 2
    assert [one.done() for one in asked] == [True, True, False, False, True]
    with pytest.raises(Overloaded, match="no room for more of this tenant"):
        await asked[-1]
    quiet = [await scene.acquire(tenant="quiet") for _ in range(2)]
    quiet[0].give_back()
    await settle()
    assert scene.waiting() == 2  # the loud one has its part
    asked[0].result().give_back()
    await settle()
    assert scene.waiting() == 1
    await drop(asked)


async def test_a_free_place_goes_to_who_may_have_it_though_the_line_is_full() -> None:
    scene = Scene(tier("small", queue_size=3, queue_seconds=30.0, tenant_share=0.3))
    scene.report("a", max_in_flight=10)
    asked = [one for tenant in "abc" for one in await flood(scene, tenant, 4)]
    assert (scene.in_flight(), scene.waiting()) == ({"a": 9}, 3)
    place = await scene.acquire(tenant="d")
    assert scene.waiting() == 3  # nobody made room for it
    assert sum(one.done() for one in asked) == 9
    place.give_back()
    await drop(asked)


@pytest.mark.parametrize("goes", [True, False])
async def test_whoever_comes_where_no_replica_is_costs_no_look_at_the_line(*, goes: bool) -> None:
    scene = Scene(replace(SMALL, queue_size=100))
    looks: list[int] = []

    def elsewhere() -> bool:
        looks.append(1)
        return goes and len(looks) > 100

    asked = [
        asyncio.create_task(
            scene.fleet.place(
                scene.tier,
                INTERACTIVE,
                avoid=(),
                until=scene.clock() + 60.0,
                elsewhere=elsewhere,
            )
        )
        for _ in range(100)
    ]
    await settle()
    assert (len(looks), scene.waiting()) == (100, 100)
    scene.report("b", state=State.STARTING)  # another look, as the fleet has changed
    await settle()
    assert (len(looks), scene.waiting()) == (200, 0 if goes else 100)
    await drop(asked)


async def test_a_share_follows_the_replicas_and_the_policy() -> None:
    half = tier("small", queue_size=4, queue_seconds=30.0, tenant_share=0.5)
    scene = Scene(half)
    scene.report("a", max_in_flight=2)
    asked = await flood(scene, "loud", 3)
    assert scene.in_flight() == {"a": 1}
    scene.report("b", max_in_flight=2)
    await settle()
    assert sum(scene.in_flight().values()) == 2
    scene.fleet.adopt(policies(route("chat", replace(half, tenant_share=1.0))))
    await settle()
    assert sum(scene.in_flight().values()) == 3
    assert scene.waiting() == 0
    await drop(asked)


# --- a random walk -------------------------------------------------------------------------

names = st.sampled_from("abc")
index = st.integers(0, 20)
steps = st.one_of(
    st.tuples(st.just("acquire"), st.sampled_from(Priority), st.booleans(), st.sets(names), names),
    st.tuples(st.just("cancel"), index),
    st.tuples(st.just("release"), index),
    st.tuples(st.just("fail"), index),
    st.tuples(st.just("tell"), names, st.sampled_from(State), st.integers(1, 3)),
    st.tuples(st.just("replace"), st.sets(names), st.integers(1, 3)),
    st.tuples(st.just("run")),
    st.tuples(st.just("wait")),
)


class Walk:
    """Plays steps, keeps who holds what, and compares."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.seen: set[Replica] = set()
        self.asking: list[asyncio.Task[Place]] = []
        self.held: list[Place] = []

    def step(self, kind: str, *rest: Any) -> None:
        fleet = self.scene.fleet
        match kind, rest:
            case "acquire", (priority, patient, avoid, tenant):
                seconds = 60.0 if patient else 0.001
                work = self.scene.acquire(priority, avoid=avoid, seconds=seconds, tenant=tenant)
                self.asking.append(asyncio.create_task(work))
            case "cancel", (number,) if self.asking:
                self.asking[number % len(self.asking)].cancel()
            case "release", (number,) if self.held:
                self.held.pop(number % len(self.held)).give_back()
            case "fail", (number,) if self.held:
                fleet.failed(self.held[number % len(self.held)].replica)
            case "tell", (name, state, most):
                fleet.update([reported(name, state=state, max_in_flight=most)])
            case "replace", (chosen, most):
                fleet.replace([reported(name, max_in_flight=most) for name in sorted(chosen)])

    def collect(self) -> None:
        """Takes note of who got a place and who got an error."""
        for task in [one for one in self.asking if one.done()]:
            self.asking.remove(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.held.append(task.result())
                self.seen.add(task.result().replica)
            else:
                assert isinstance(error, ServiceError), error

    def check(self) -> None:
        for replica in self.seen:
            assert replica.in_flight == sum(1 for place in self.held if place.replica is replica)
        living = Counter(p.replica.id for p in self.held if p.replica.state is not State.GONE)
        assert +Counter(self.scene.in_flight()) == living
        assert self.scene.waiting() == len(self.asking) <= self.scene.tier.queue_size
        if self.asking:
            assert self.scene.fleet.preview("small") == ""  # nobody waits beside a free place


@settings(max_examples=60)
@given(st.lists(steps, max_size=40))
@example(
    [
        *[("acquire", Priority.BATCH, True, set(), "a")] * 3,
        ("run",),
        ("acquire", Priority.CRITICAL, True, set(), "a"),
        ("cancel", 2),
        ("run",),
        ("tell", "a", State.READY, 3),
    ]
)
@example(
    [
        ("tell", "a", State.READY, 3),
        ("acquire", Priority.BATCH, True, set(), "a"),
        ("run",),
        ("tell", "a", State.GONE, 3),
        ("run",),
    ]
)
def test_no_place_is_ever_lost_or_given_twice(walked: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        walk = Walk()
        for kind, *rest in walked:
            walk.step(kind, *rest)
            if kind in {"run", "wait"}:
                await (asyncio.sleep(0.002) if kind == "wait" else settle())
                await settle()
                walk.collect()
                walk.check()
        for task in walk.asking:
            task.cancel()
        await asyncio.gather(*walk.asking, return_exceptions=True)
        walk.collect()
        walk.check()
        while walk.held:
            walk.held.pop().give_back()
        walk.check()
        assert all(replica.in_flight == 0 for replica in walk.seen)
        assert not walk.scene.fleet._in_force["small"]._held

    asyncio.run(play())


async def test_a_replica_that_moves_leaves_its_old_connection_behind() -> None:
    scene = Scene()
    scene.report("a")
    scene.report("a", address="elsewhere:1")
    assert scene.forgotten == ["a:1"]
    assert (await scene.acquire()).replica.address == "elsewhere:1"


async def test_a_place_in_other_hands_is_given_back_by_them_alone() -> None:
    scene = Scene()
    scene.report("a")
    async with await scene.acquire() as place:
        other = place.moved()
    assert scene.in_flight() == {"a": 1}
    other.give_back()
    other.give_back()
    assert scene.in_flight() == {"a": 0}
