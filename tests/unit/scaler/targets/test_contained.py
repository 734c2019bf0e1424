"""What goes wrong with one replica in a way that nobody foresaw stays with that replica."""

import asyncio

from services.scaler.config import Slot
from tests.making.replicas import Host, pool
from tests.unit.scaler.targets.test_local import at_work


class Broken(Host):
    """A host of which one call fails once, in a way that is no failure of a replica."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call

    def fail_once(self, call: str) -> None:
        if self.call == call:
            self.call = ""
            raise RuntimeError(call)

    async def start(self, *args, **named):
        self.fail_once("start")
        return await super().start(*args, **named)

    async def is_ready(self, replica_id):
        self.fail_once("is_ready")
        return await super().is_ready(replica_id)

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
