"""Tiers without replicas: who waits asks for one, once, and hears whether one comes."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import DeadlineExceeded, Unavailable
from services.router.fleet import waking as waking_room
from services.router.fleet.fleet import Fleet
from services.router.fleet.group import SOON_SECONDS, UNKNOWN_SECONDS
from services.router.fleet.place import Place
from services.router.fleet.replica import Replica, State
from services.router.fleet.waking import TierWaking
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.ports import Coming, ComingAnswer
from tests.making.clock import FakeClock
from tests.making.policies import policies, route, tier

SMALL = tier("small", queue_size=3, queue_seconds=0.05)
COMING, NONE = Coming(ComingAnswer.COMING, 5.0), Coming(ComingAnswer.NONE)
UNKNOWN = Coming(ComingAnswer.UNKNOWN)


def replica(state: State, places: int) -> Replica:
    return Replica("small-0", "small", SMALL.model, SMALL.precision, "a:1", state, places)


class Scaler:
    """Says what a test wants of each tier, when it wants."""

    def __init__(self, answer: Coming) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.may = asyncio.Event()
        self.may.set()

    async def wake(self, name: str) -> Coming:
        self.asked.append(name)
        await self.may.wait()
        return self.answer


class Scene:
    """A fleet of one tier without replicas; its clock stands still."""

    def __init__(self, answer: Coming) -> None:
        self.clock = FakeClock()
        self.scaler = Scaler(answer)
        self.registry = CollectorRegistry()
        self.tasks: list[asyncio.Task[None]] = []
        self.fleet = Fleet(
            policies(route("chat", SMALL)),
            Metrics(self.registry),
            spawn=lambda work: self.tasks.append(asyncio.ensure_future(work)),
            waking=self.scaler,
            clock=self.clock.time,
        )

    async def place(
        self, seconds: float = 60.0, elsewhere: Callable[[], bool] | None = None
    ) -> Place:
        return await self.fleet.place(
            SMALL,
            Priority.INTERACTIVE,
            avoid=(),
            until=self.clock.now + seconds,
            elsewhere=elsewhere,
        )

    def come(self) -> None:
        self.fleet.update([replica(State.READY, 4)])

    def answers(self, answer: str) -> float:
        labels = {"tier": "small", "answer": answer}
        return self.registry.get_sample_value("pennyweight_router_wakes_total", labels) or 0.0


@pytest.fixture
async def scene():
    made: list[Scene] = []

    def make(answer: Coming) -> Scene:
        made.append(Scene(answer))
        return made[-1]

    yield make
    for one in made:
        for task in one.tasks:
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)


async def test_who_waits_goes_on_when_a_replica_is_ready_however_long_the_tier_lets_wait(scene):
    scene = scene(COMING)
    waiting = [asyncio.create_task(scene.place()) for _ in range(3)]
    await asyncio.sleep(3 * SMALL.queue_seconds)
    assert not any(one.done() for one in waiting)
    assert scene.scaler.asked == ["small"], "three wait, one call"
    assert scene.answers("coming") == 1
    scene.come()
    for place in await asyncio.gather(*waiting):
        async with place:
            assert place.replica.id == "small-0"


async def test_a_deadline_holds_even_so(scene):
    scene = scene(COMING)
    with pytest.raises(DeadlineExceeded):
        await scene.place(seconds=0.1)


async def test_where_none_comes_nobody_waits(scene):
    scene = scene(NONE)
    first = asyncio.create_task(scene.place())
    with pytest.raises(Unavailable, match="small has no replica, and none is on its way"):
        await asyncio.wait_for(first, 0.04)
    with pytest.raises(Unavailable, match="none is on its way"):
        await scene.place()
    assert scene.scaler.asked == ["small"], "the answer counts for a while"
    scene.come()
    async with await scene.place():
        pass


async def test_where_nobody_says_so_it_is_as_long_as_the_tier_lets_wait(scene):
    scene = scene(UNKNOWN)
    with pytest.raises(Unavailable, match=r"none came within 0\.05 s"):
        await scene.place()


async def test_a_replica_that_no_longer_comes_ends_the_wait(scene):
    scene = scene(COMING)
    waiting = asyncio.create_task(scene.place())
    await asyncio.sleep(2 * SMALL.queue_seconds)
    assert not waiting.done()
    scene.clock.now += 10.0  # nobody said so for a while
    scene.fleet._expect("small", NONE)
    with pytest.raises(Unavailable, match="none is on its way"):
        await waiting


async def test_who_may_go_elsewhere_asks_for_nothing(scene):
    scene = scene(COMING)
    with pytest.raises(Unavailable, match="no replica left"):
        await scene.place(elsewhere=lambda: True)
    assert scene.scaler.asked == []


async def test_the_last_replica_that_goes_is_asked_for_again(scene):
    scene = scene(COMING)
    scene.fleet.update([replica(State.READY, 1)])
    held = await scene.place()
    waiting = asyncio.create_task(scene.place())
    await asyncio.sleep(0)
    assert scene.scaler.asked == []
    scene.fleet.update([replica(State.GONE, 1)])
    await asyncio.sleep(0)
    assert scene.scaler.asked == ["small"]
    async with held:
        pass
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_it_asks_again_as_long_as_somebody_waits():
    scaler, pauses, heard = Scaler(COMING), [], []
    left = [3]

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        left[0] -= 1
        scaler.answer = UNKNOWN

    tasks: list[asyncio.Task[None]] = []
    waking = TierWaking(
        scaler,
        Metrics(CollectorRegistry()),
        needed=lambda _tier: left[0] > 0,
        answered=lambda name, coming: heard.append((name, coming.answer)),
        spawn=lambda work: tasks.append(asyncio.ensure_future(work)),
        pause=pause,
        chance=lambda: 1.0,
    )
    waking.miss("small")
    waking.miss("small")
    await asyncio.gather(*tasks)
    assert [answer for _, answer in heard] == ["coming", "unknown", "unknown"]
    assert pauses == [1.0, 0.2, 0.4], "longer each time that nobody answers"
    left[0] = 1
    waking.miss("small")
    await asyncio.gather(*tasks)
    assert len(heard) == 4


async def lose(scene: Scene) -> float:
    """A replica fails a request and is gone; when its caller is to ask again."""
    scene.fleet.update([replica(State.READY, 4)])
    async with await scene.place() as place:
        scene.fleet.failed(place.replica)
        scene.fleet.update([replica(State.GONE, 4)])
    return float(await scene.fleet.again_seconds(SMALL))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [(Coming(ComingAnswer.COMING, 42.0), 42.0), (UNKNOWN, UNKNOWN_SECONDS), (NONE, 5.0)],
    ids=str,
)
async def test_who_lost_the_last_replica_is_told_when_one_is_expected(scene, answer, seconds):
    scene = scene(answer)
    assert await lose(scene) == pytest.approx(seconds)
    assert scene.scaler.asked == ["small"]


async def test_a_crowd_that_lost_a_replica_asks_twice_and_waits_for_no_scaler(scene, monkeypatch):
    monkeypatch.setattr(waking_room, "HINT_SECONDS", 0.01)
    scene = scene(COMING)
    scene.scaler.may.clear()
    assert await lose(scene) == UNKNOWN_SECONDS
    scene.scaler.asked.clear()
    monkeypatch.setattr(waking_room, "HINT_SECONDS", 20.0)
    crowd = [asyncio.create_task(scene.fleet.again_seconds(SMALL)) for _ in range(50)]
    await asyncio.sleep(0)
    scene.scaler.may.set()
    assert set(await asyncio.gather(*crowd)) == {5.0}
    assert len(scene.scaler.asked) <= 2


async def test_where_another_replica_answers_it_is_soon_and_nobody_is_asked(scene):
    scene = scene(COMING)
    other = Replica("small-1", "small", SMALL.model, SMALL.precision, "a:2", State.READY, 4)
    scene.fleet.update([other])
    assert await lose(scene) == SOON_SECONDS
    assert scene.scaler.asked == []


async def test_a_replica_that_is_avoided_is_expected_when_it_is_tried_again(scene):
    scene = scene(Coming(ComingAnswer.COMING, 0.0))  # as far as the scaler knows it is well
    scene.fleet.update([replica(State.READY, 4)])
    async with await scene.place() as place:
        scene.fleet.failed(place.replica, silent=True)
    rest = place.replica.breaker.open_until - scene.clock.now
    assert rest >= 10.0
    assert await scene.fleet.again_seconds(SMALL) == pytest.approx(rest)
