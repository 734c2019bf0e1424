"""The fleet over a target that does as it is told: states, revisions, watchers."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.common.errors import Overloaded, Unavailable
from services.scaler.config import Capacity, Pool, Restart, Scaling, Slot
from services.scaler.fleet import fleet as fleet_module
from services.scaler.fleet import watchers
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.watchers import Update, Watchers
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy.replicas import State
from services.scaler.ports import Adopted, Replica, StartFailed, fingerprint


def pool(**changes) -> Pool:
    fields = {
        "tier": "small",
        "model": "m",
        "precision": "int8",
        "repository": "/models",
        "slots": (Slot(), Slot()),
        "size": 1,
    }
    return Pool(**(fields | changes))


class Obedient:
    """A target whose replicas are ready when told, and die when told."""

    def __init__(self) -> None:
        self.left: list[Adopted] = []
        self.ready = True
        self.running: int | None = 0
        self.refusal = ""
        self.ended: list[tuple[str, bool]] = []

    def replica(self, replica_id: str, name: str, of: Pool, slot: int) -> Replica:
        return Replica(
            id=replica_id,
            pool=name,
            slot=slot,
            tier=of.tier,
            model=of.model,
            precision=of.precision,
            capacity=of.capacity,
            max_in_flight=of.max_in_flight,
            address=f"127.0.0.1:{slot}",
            started_at=1.0,
            fingerprint=fingerprint(of, of.slots[slot]),
        )

    async def adopt(self, on_death):
        self.kill = on_death
        return self.left

    async def start(self, replica_id, name, of, slot):
        if self.refusal:
            raise StartFailed(self.refusal)
        return self.replica(replica_id, name, of, slot)

    async def is_ready(self, replica_id):
        return self.ready

    async def running_requests(self, replica_id):
        return self.running

    async def end(self, replica_id, *, gently):
        self.ended.append((replica_id, gently))

    async def close(self):
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("DECIDE_SECONDS", "READY_PROBE_SECONDS", "OTHER_PROBE_SECONDS"):
        monkeypatch.setattr(fleet_module, name, 0.001)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def keeping(target, *, clock=None, **pools):
    metrics = Metrics()
    scaling = Scaling(pools=pools, restart=Restart(first_seconds=10))
    fleet = Fleet(scaling, target, Loads(), metrics, clock=clock or Clock())
    await fleet.adopt()
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()


async def states(watcher, count: int) -> list[tuple[State, int]]:
    found = []
    while len(found) < count:
        update = await watcher.next(5.0)
        assert update is not None
        found += [(one.state, update.revision) for one in update.replicas]
    return found


async def test_a_death_is_told_before_anything_else_runs():
    target = Obedient()
    async with keeping(target, a=pool(slots=(Slot(),))) as fleet:
        with fleet.watch() as watcher:
            (_, first), (state, second) = await states(watcher, 2)
            assert (state, second) == (State.READY, first + 1)
            replica = fleet.pools()[0].replicas[0].replica
            target.kill(replica.id, "its server process died")
            assert fleet.pools()[0].replicas == ()
            assert await states(watcher, 1) == [(State.BROKEN, second + 1)]
        await asyncio.sleep(0.05)
        assert target.ended == [(replica.id, False)]
        assert "next try in 10 s" in fleet.pools()[0].trouble


async def test_another_slot_takes_over_at_once():
    target = Obedient()
    async with keeping(target, a=pool()) as fleet:
        with fleet.watch() as watcher:
            await states(watcher, 2)
            target.kill(fleet.pools()[0].replicas[0].replica.id, "its Python stub died")
            await states(watcher, 3)
        (seen,) = fleet.pools()[0].replicas
        assert (seen.replica.slot, seen.state) == (1, State.READY)


async def test_what_cannot_start_is_the_pools_trouble_and_is_tried_again():
    target, clock = Obedient(), Clock()
    target.refusal = "port 18101 is taken"
    async with keeping(target, clock=clock, a=pool(slots=(Slot(),))) as fleet:
        await asyncio.sleep(0.02)
        expected = "slot 0: failed once, last because port 18101 is taken; next try in 10 s"
        assert fleet.pools()[0].trouble == expected
        target.refusal = ""
        clock.now = 10.0
        with fleet.watch() as watcher:
            await states(watcher, 2)
        await asyncio.sleep(0.01)
        assert fleet.pools()[0].trouble == ""


async def test_adopted_replicas_are_in_the_first_message_and_stay():
    target = Obedient()
    target.left = [Adopted(target.replica("a-0-old", "a", pool(), 0), ready=True)]
    async with keeping(target, a=pool(capacity=Capacity.SPOT)) as fleet:
        with fleet.watch() as watcher:
            update = await watcher.next(1.0)
        assert update is not None
        assert update.full
        assert [(one.replica.id, one.state) for one in update.replicas] == [
            ("a-0-old", State.READY)
        ]
        assert update.replicas[0].replica.capacity is Capacity.SPOT
        await asyncio.sleep(0.02)
        assert target.ended == []
        assert fleet.pools()[0].typical_start_seconds is None


async def test_replicas_of_a_forgotten_pool_are_drained_and_ended():
    target = Obedient()
    target.left = [Adopted(target.replica("b-0-old", "b", pool(), 0), ready=True)]
    clock = Clock()
    async with keeping(target, clock=clock, a=pool(size=0)) as fleet:
        with fleet.watch() as watcher:
            assert [state for state, _ in await states(watcher, 2)] == [
                State.READY,
                State.DRAINING,
            ]
            clock.now = 1.0
            assert [state for state, _ in await states(watcher, 1)] == [State.ENDING]
    assert target.ended == [("b-0-old", True)]


async def test_the_end_waits_for_running_requests_but_not_for_ever():
    target, clock = Obedient(), Clock()
    target.running = 2
    async with keeping(target, clock=clock, a=pool()) as fleet:
        with fleet.watch() as watcher:
            await states(watcher, 2)
            ending = asyncio.create_task(fleet.end_all(5.0))
            assert (await states(watcher, 1))[0][0] is State.DRAINING
            clock.now = 4.9
            await asyncio.sleep(0.02)
            assert not ending.done()
            clock.now = 5.0
            await ending
            assert (await states(watcher, 1))[0][0] is State.ENDING
    assert [gently for _, gently in target.ended] == [True]


async def test_a_slow_watcher_is_dropped_and_others_are_not():
    dropped = []
    hub = Watchers(on_drop=lambda: dropped.append(1))
    first = Update(full=True, replicas=(), revision=0)
    with hub.subscribe(first) as slow, hub.subscribe(first) as quick:
        for revision in range(1, watchers.QUEUE + 2):
            assert (await quick.next(1.0)).revision == revision - 1
            hub.publish(Update(full=False, replicas=(), revision=revision))
        with pytest.raises(Overloaded, match="too slow"):
            await slow.next(1.0)
        assert (dropped, len(hub)) == ([1], 1)


async def test_closing_ends_watchers_after_what_is_queued():
    hub = Watchers()
    with hub.subscribe(Update(full=True, replicas=(), revision=7)) as watcher:
        hub.close()
        assert (await watcher.next(1.0)).revision == 7
        with pytest.raises(Unavailable):
            await watcher.next(1.0)
    with pytest.raises(Unavailable), hub.subscribe(Update(full=True, replicas=(), revision=8)):
        pass


async def test_a_quiet_fleet_gives_no_news():
    hub = Watchers()
    with hub.subscribe(Update(full=True, replicas=(), revision=7)) as watcher:
        await watcher.next(1.0)
        assert await watcher.next(0.001) is None


async def test_a_scaler_that_paused_does_not_take_its_own_silence_for_a_replicas():
    target, clock = Obedient(), Clock()
    async with keeping(target, clock=clock, a=pool(slots=(Slot(),))) as fleet:
        with fleet.watch() as watcher:
            await states(watcher, 2)
        target.ready = False
        await asyncio.sleep(0.05)
        clock.now += 34.0
        await asyncio.sleep(0.05)
        assert target.ended == []
        for _ in range(8):
            clock.now += 4.0
            await asyncio.sleep(0.02)
        assert target.ended, "real silence is still noticed"
