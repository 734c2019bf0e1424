"""What goes wrong with one replica in a way that nobody foresaw stays with that replica."""

import asyncio
import errno
import os

import pytest

from services.scaler.config import Scaling
from services.scaler.policy.replicas import State
from services.scaler.pools.pool import Slot
from services.scaler.ports import PoolStatus
from services.scaler.targets.good_settings import GoodSettings
from services.scaler.targets.occupants import Occupant
from services.scaler.targets.replica_processes import ReplicaProcesses
from services.scaler.targets.slots import StartHindered
from tests.making.replicas import Host, pool
from tests.unit.scaler.targets.test_local import at_work


class Broken(Host):
    """A host of which one call fails so often, in a way that is no failure of a replica."""

    def __init__(self, call: str, error: Exception | None = None, times: int = 1) -> None:
        super().__init__()
        self.call = call
        self.error = error or RuntimeError(call)
        self.times = times

    def fail_once(self, call: str) -> None:
        if self.call == call and self.times:
            self.times -= 1
            raise self.error

    async def start(self, *args, **named):
        self.fail_once("start")
        return await super().start(*args, **named)

    async def is_ready(self, replica_id):
        self.fail_once("is_ready")
        return await super().is_ready(replica_id)

    def note_ready(self, replica_id):
        self.fail_once("note_ready")
        return super().note_ready(replica_id)

    def note_draining(self, replica_id):
        self.fail_once("note_draining")
        super().note_draining(replica_id)

    async def running_requests(self, replica_id):
        self.fail_once("running_requests")
        return await super().running_requests(replica_id)

    async def end(self, replica_id, *, gently):
        self.fail_once("end")
        await super().end(replica_id, gently=gently)


async def test_a_start_that_fails_oddly_is_tried_again_later():
    async with at_work(Broken("start"), a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        async with asyncio.timeout(5.0):
            while "log has the details" not in scene.status().trouble:
                await asyncio.sleep(0.001)
        scene.clock.now += 30.0
        await scene.ready()


async def test_a_replica_that_cannot_be_looked_after_is_made_anew():
    host = Broken("is_ready")
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.until(lambda _: bool(host.ended))
        scene.clock.now += 30.0
        (made,) = await scene.ready()
        assert made.replica.id != host.ended[0][0]


async def test_an_end_that_fails_oddly_keeps_no_slot():
    host = Broken("end")
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        gone = (one.replica.id,)
        scene.resize(0, draining=gone, drained=gone)
        await scene.until(lambda it: it.empty)
        scene.resize(1)
        await scene.ready()


async def test_good_settings_that_cannot_be_kept_cost_nothing(tmp_path):
    class Hindered(GoodSettings):
        tried = False

        def keep(self, pool, settings):
            self.tried = True
            raise RuntimeError("can't start new thread")

    good = Hindered(tmp_path)
    async with at_work(Host(), good=good, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.ready()
        async with asyncio.timeout(5.0):
            while not good.tried:
                await asyncio.sleep(0)
        await scene.decided()
        await scene.ready()


def full() -> OSError:
    return OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("call", ["is_ready", "note_ready", "running_requests"])
async def test_a_scaler_without_descriptors_blames_no_replica(call):
    host = Broken(call, full(), times=3)
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        scene.resize(0, draining=(one.replica.id,))
        await scene.until(lambda it: it.replicas[0].running_requests == 0)
        assert (host.times, host.ended) == (0, [])
        assert scene.status().replicas[0].replica.id == one.replica.id


async def test_nobody_is_silent_to_a_scaler_that_cannot_ask():
    host = Broken("is_ready", full(), times=0)
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        host.times = 10_000
        for _ in range(10):
            before = host.times
            scene.clock.now += 4.0
            async with asyncio.timeout(5.0):
                while host.times > before - 3:
                    await asyncio.sleep(0)
        host.times = 0
        await scene.asked()
        (same,) = scene.status().replicas
        assert (same.replica.id, same.ready, host.ended) == (one.replica.id, True, [])


async def test_a_start_that_failed_for_want_of_descriptors_leaves_nothing_and_blames_no_settings():
    host = Broken("start", full())
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        await scene.until(lambda _: bool(host.ended))
        scene.clock.now += 30.0
        (made,) = await scene.ready()
        assert made.replica.id != host.ended[0][0]
        await scene.decided()
        assert scene.status().trouble == ""


async def test_an_end_that_fails_again_and_again_keeps_its_slot_until_it_is_done():
    host = Broken("end", full(), times=3)
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        gone = (one.replica.id,)
        scene.resize(0, draining=gone, drained=gone)
        await scene.until(lambda it: it.empty)
        assert (host.times, host.ended) == (0, [(one.replica.id, True)])


async def test_a_replica_dies_once():
    host = Host()
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        host.kill(one.replica.id, "its server process died")
        host.kill(one.replica.id, "its Python stub died")
        await scene.until(lambda it: it.empty)
        await scene.decided()
        assert "failed once, last because its server process died" in scene.status().trouble
        assert host.ended == [(one.replica.id, False)]


async def test_a_slot_that_has_gone_at_the_moment_of_a_start_is_no_failure():
    host = Host()
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        late = Occupant("a-1-x", "a", 1, State.STARTING, 0.0)
        scene.target._kept.occupants[late.id] = late
        await scene.target._care.start(late)
        scene.resize(0)
        await scene.decided()
        assert scene.status() == PoolStatus(capacity=1)
        assert host.ended == []


async def test_a_drain_that_cannot_be_noted_goes_on():
    host = Broken("note_draining", OSError(errno.ENOSPC, "No space left on device"))
    async with at_work(host, a=pool(slots=(Slot(),))) as scene:
        scene.resize(1)
        (one,) = await scene.ready()
        gone = (one.replica.id,)
        scene.resize(0, draining=gone)
        assert (host.times, host.draining) == (0, [])
        assert scene.status().replicas[0].draining
        scene.resize(0, draining=gone, drained=gone)
        await scene.until(lambda it: it.empty)
        assert host.ended == [(one.replica.id, True)]


LACKS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EAGAIN, errno.ENOMEM, errno.EMFILE]
HINDRANCES = [
    *(OSError(number, os.strerror(number)) for number in LACKS),
    StartHindered("port 18101 on 127.0.0.1 is taken by somebody else"),
]


@pytest.mark.parametrize("hindrance", HINDRANCES, ids=str)
async def test_new_settings_are_not_refused_for_what_is_no_fault_of_theirs(hindrance: Exception):
    host = Broken("start", hindrance, times=0)
    slots = (Slot(), Slot())
    async with at_work(host, a=pool(slots=slots)) as scene:
        scene.resize(1)
        await scene.ready()
        await scene.decided()
        host.times = 1
        scene.target.configure(Scaling(pools={"a": pool(slots=slots, precision="int9")}))
        await scene.happens(lambda: not host.times)
        await scene.decided()
        assert str(hindrance) in scene.status().trouble
        assert scene.status().refused is None
        scene.clock.now += 30.0
        await scene.until(lambda it: any(one.replica.precision == "int9" for one in it.replicas))


async def test_a_full_disk_is_told_as_ours_and_not_as_a_start_that_failed(tmp_path, monkeypatch):
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    host = ReplicaProcesses(tmp_path, {})
    monkeypatch.setattr(host, "_spawn", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        await host.start("a-0-x", "a", pool(), 0)
