"""Policies that come in force change the fleet under running and waiting requests, safely."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.common.errors import Overloaded, ServiceError
from services.router.fleet.fleet import Fleet
from services.router.fleet.place import Place
from services.router.fleet.replica import Replica, State
from services.router.fleet.snapshot import LoadCollector
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.policy.routes import Tier
from tests.making.policies import policies, route, tier

OLD = tier("small", model="old", queue_size=3, queue_seconds=30.0)
NEW = replace(OLD, model="new")
OTHER = tier("other")


class Scene:
    """A fleet whose policies change."""

    def __init__(self, *tiers: Tier) -> None:
        self.registry = CollectorRegistry()
        self.forgotten: list[str] = []
        self.fleet = Fleet(
            policies(route("chat", *tiers)),
            Metrics(self.registry),
            spawn=lambda work: work.close(),
            forget=self.forgotten.append,
        )

    def adopt(self, *tiers: Tier) -> None:
        self.fleet.adopt(policies(route("chat", *tiers)))

    async def acquire(self, wanted: Tier, *, seconds: float = 60.0) -> Place:
        until = time.monotonic() + seconds
        return await self.fleet.place(wanted, Priority.INTERACTIVE, avoid=(), until=until)

    def load(self) -> dict[str, tuple[int, int]]:
        """Waiting and running by tier."""
        return {load.tier: (load.waiting, load.running) for load in self.fleet.snapshot()}

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pennyweight_router_{name}", labels)


def told(name: str, model: str = "old", **changes: Any) -> Replica:
    replica = Replica(name, "small", model, "int8", f"{name}:1", State.READY, max_in_flight=1)
    return replace(replica, **changes)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_new_tier_gets_the_replicas_that_were_there_before_it() -> None:
    scene = Scene(OTHER)
    scene.fleet.update([told("a"), told("b", model="new")])
    assert (scene.fleet.ready("small"), scene.fleet.preview("small")) == (0, "")
    scene.adopt(OTHER, NEW)
    assert (scene.fleet.ready("small"), scene.fleet.preview("small")) == (1, "b")
    assert scene.metric("replicas", tier="small", state="ready") == 1
    assert (await scene.acquire(NEW)).replica.id == "b"


async def test_a_tier_with_another_model_leaves_the_replicas_of_the_old_one() -> None:
    scene = Scene(OLD)
    scene.fleet.update([told("a"), told("b", model="new")])
    running = await scene.acquire(OLD)
    scene.adopt(NEW)
    assert scene.fleet.preview("small") == "b"
    assert (await scene.acquire(NEW)).replica.id == "b"
    assert scene.load() == {"small": (0, 2)}  # the scaler is still told of what runs on the old one
    running.give_back()
    assert scene.load() == {"small": (0, 1)}
    assert running.replica.state is State.READY


async def test_a_request_under_way_gets_the_model_that_its_policies_name() -> None:
    scene = Scene(OLD)
    scene.fleet.update([told("a"), told("b", model="new")])
    held = await scene.acquire(OLD)
    waiting = asyncio.create_task(scene.acquire(OLD))
    await settle()
    scene.adopt(NEW)
    await settle()
    assert not waiting.done()  # "b" is free, and serves another model
    held.give_back()
    assert (await waiting).replica.id == "a"
    (await waiting).give_back()
    assert (await scene.acquire(OLD)).replica.id == "a"  # one that chose its tier before the change


async def test_who_waits_is_served_by_replicas_of_its_model_that_come_later() -> None:
    scene = Scene(OLD)
    waiting = asyncio.create_task(scene.acquire(OLD))
    await settle()
    scene.adopt(NEW)
    scene.fleet.update([told("a")])
    assert (await waiting).replica.id == "a"


async def test_a_tier_that_is_gone_serves_requests_under_way_and_is_forgotten() -> None:
    scene = Scene(OTHER, OLD)
    scene.fleet.update([told("a")])
    held = await scene.acquire(OLD)
    scene.adopt(OTHER)
    assert scene.load() == {"other": (0, 0), "small": (0, 1)}
    assert (scene.fleet.ready("small"), scene.fleet.preview("small")) == (0, "")
    held.give_back()
    assert scene.load() == {"other": (0, 0)}
    late = await scene.acquire(OLD)
    assert late.replica.id == "a"
    late.give_back()
    assert scene.load() == {"other": (0, 0)}


async def test_gauges_of_a_tier_go_with_it() -> None:
    scene = Scene(OTHER, OLD)
    scene.fleet.update([told("a")])
    scene.registry.register(LoadCollector(scene.fleet.snapshot))
    held = await scene.acquire(OLD)
    scene.adopt(OTHER)
    assert scene.metric("running", tier="small") == 1
    held.give_back()
    assert scene.metric("running", tier="small") is None
    assert scene.metric("waiting", tier="small") is None
    for state in State:
        assert scene.metric("replicas", tier="small", state=state) is None
    assert scene.metric("replicas", tier="other", state="ready") == 0


async def test_a_replica_that_goes_after_its_tier_is_forgotten() -> None:
    scene = Scene(OTHER, OLD)
    scene.fleet.update([told("a")])
    held = await scene.acquire(OLD)
    scene.adopt(OTHER)
    scene.fleet.replace([])
    assert scene.forgotten == ["a:1"]
    assert scene.load() == {"other": (0, 0)}
    held.give_back()
    assert held.replica.in_flight == 0
    scene.adopt(OTHER, OLD)
    assert scene.fleet.preview("small") == ""


async def test_a_replica_that_is_told_with_another_model_is_another_replica() -> None:
    scene = Scene(OLD)
    scene.fleet.update([told("a")])
    held = await scene.acquire(OLD)
    scene.fleet.update([told("a", model="new", address="a:2")])
    assert held.replica.state is State.GONE
    assert scene.forgotten == ["a:1"]
    scene.adopt(NEW)
    assert (await scene.acquire(NEW)).replica.address == "a:2"


async def test_a_line_takes_its_new_size_at_once() -> None:
    scene = Scene(replace(OLD, queue_size=2))
    waiting = [asyncio.create_task(scene.acquire(OLD)) for _ in range(2)]
    await settle()
    scene.adopt(replace(OLD, queue_size=1))
    await settle()
    assert not any(one.done() for one in waiting)
    with pytest.raises(Overloaded):
        await scene.acquire(OLD)
    scene.adopt(replace(OLD, queue_size=3))
    waiting.append(asyncio.create_task(scene.acquire(OLD)))
    await settle()
    assert scene.load() == {"small": (3, 0)}
    scene.fleet.update([told("a", max_in_flight=3)])
    assert {(await one).replica.id for one in waiting} == {"a"}


async def test_a_replica_without_a_tier_is_no_cause_for_a_warning_where_every_tier_is_served() -> (
    None
):
    scene = Scene(OLD)
    with capture_logs() as logs:
        scene.fleet.update([told("a", tier="unknown", model="other"), told("c")])
        scene.fleet.set_stale(stale=False)
        assert logs == []
        scene.fleet.update([told("b", model="new", pool="p")])
    assert [(one["tier"], one["trouble"]) for one in logs] == [
        ("small", "pool p serves small (new int8)")
    ]


# --- a random walk -------------------------------------------------------------------------

tiers = st.builds(
    lambda model, size: replace(OLD, model=model, queue_size=size),
    st.sampled_from(["old", "new"]),
    st.integers(0, 3),
)
index = st.integers(0, 20)
steps = st.one_of(
    st.tuples(st.just("adopt"), st.none() | tiers),
    st.tuples(st.just("acquire"), tiers),
    st.tuples(st.just("cancel"), index),
    st.tuples(st.just("release"), index),
    st.tuples(
        st.just("tell"),
        st.sampled_from("abc"),
        st.sampled_from(["old", "new"]),
        st.sampled_from(State),
        st.integers(1, 3),
    ),
    st.tuples(st.just("run")),
)


class Walk:
    """Plays steps, keeps who holds what, and compares."""

    def __init__(self) -> None:
        self.scene = Scene(OTHER, OLD)
        self.in_force: Tier | None = OLD
        self.asking: list[tuple[Tier, asyncio.Task[Place]]] = []
        self.held: list[Place] = []
        self.known: dict[str, Replica] = {}

    def step(self, kind: str, *rest: Any) -> None:
        fleet = self.scene.fleet
        match kind, rest:
            case "adopt", (told_tier,):
                self.in_force = told_tier
                self.scene.adopt(OTHER, *([told_tier] if told_tier else []))
            case "acquire", (wanted,):
                self.asking.append((wanted, asyncio.create_task(self.scene.acquire(wanted))))
            case "cancel", (number,) if self.asking:
                self.asking[number % len(self.asking)][1].cancel()
            case "release", (number,) if self.held:
                self.held.pop(number % len(self.held)).give_back()
            case "tell", (name, model, state, most):
                reported = told(name, model=model, state=state, max_in_flight=most)
                self.known[name] = replace(reported)
                if state is State.GONE:
                    del self.known[name]
                fleet.update([reported])

    def collect(self) -> None:
        for wanted, task in [one for one in self.asking if one[1].done()]:
            self.asking.remove((wanted, task))
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                assert task.result().replica.model == wanted.model
                self.held.append(task.result())
            else:
                assert isinstance(error, ServiceError), error

    def check(self) -> None:
        fleet = self.scene.fleet
        held = [place.replica for place in self.held]
        for replica in set(held):
            assert replica.in_flight == held.count(replica)
        living = [replica for replica in held if replica.state is not State.GONE]
        waiting, running = self.scene.load().get("small", (0, 0))
        assert (waiting, running) == (len(self.asking), len(living))
        for wanted, _ in self.asking:
            for one in self.known.values():
                taken = sum(replica.id == one.id for replica in living)
                free = one.state is State.READY and taken < one.max_in_flight
                assert not (free and one.model == wanted.model)  # nobody waits beside a free place
        preview = fleet.preview("small")
        if preview:
            assert self.in_force is not None
            assert self.known[preview].model == self.in_force.model
        if self.in_force is None and not self.asking and not living:
            assert "small" not in self.scene.load()
            assert self.scene.metric("replicas", tier="small", state="ready") is None


@settings(max_examples=100)
@given(st.lists(steps, max_size=40))
def test_no_place_is_lost_and_no_request_gets_another_model(walked: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        walk = Walk()
        for kind, *rest in walked:
            walk.step(kind, *rest)
            if kind == "run":
                await settle()
                walk.collect()
                walk.check()
        for _, task in walk.asking:
            task.cancel()
        await asyncio.gather(*(task for _, task in walk.asking), return_exceptions=True)
        walk.collect()
        while walk.held:
            walk.held.pop().give_back()
        walk.check()
        # What is not forgotten shows nowhere but in memory.
        assert len(walk.scene.fleet._groups) == 1 + (walk.in_force is not None)

    asyncio.run(play())
