"""A pool that follows its load over real Triton processes: up, down, to zero and back."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.scaler.history.lasting import LastingFile
from services.scaler.policy.sizing.capacity import Fit, Learned
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.money import DAY_SECONDS, Day, Spent
from services.scaler.policy.sizing.work import WorkMemory
from tests.integration.scaler.harness import KEY, MODEL, READY, Scaler, until_async
from tests.integration.scaler.test_scaler_servicer import CALLER, key_file

SCALE = {
    "min": 0,
    "max": 2,
    "work": None,
    "signals": {"running": {"target": 0.5, "stale_seconds": 5}},
    "stale_seconds": 5,
    "zero": {"idle_seconds": 1},
}


class Router:
    """Reports what a test says runs, on whichever replicas there are."""

    def __init__(self, scaler: Scaler) -> None:
        self.scaler = scaler
        self.running = 0
        self._arrivals = 0

    async def reports(self) -> AsyncIterator[pb.ReportLoadRequest]:
        while True:
            pool = await self.scaler.pool()
            ready = [one.id for one in pool.replicas if one.state == READY]
            self._arrivals += self.running
            tier = pb.TierLoad(tier="small", running=self.running, arrivals=self._arrivals)
            report = pb.ReportLoadRequest(router="r", tiers=[tier])
            report.started_at.FromSeconds(1)
            for name in ready:
                load = pb.ReplicaLoad(replica=name, in_flight=self.running // len(ready))
                report.replicas.append(load)
            yield report
            await asyncio.sleep(0.2)

    async def report(self) -> None:
        await self.scaler.stub.ReportLoad(self.reports(), metadata=KEY)


async def test_a_pool_grows_shrinks_sleeps_and_wakes(home):
    home = home(slots=[{}, {}], size=1, max_in_flight=4, scale=SCALE, drain_seconds=5)
    home.head = {"tick_seconds": 1}
    home.write()
    scaler = await home.start(keep=False)
    router = Router(scaler)
    router.running = 2
    reporting = asyncio.create_task(router.report())
    await scaler.ready(1)
    router.running = 4
    await scaler.ready(2)
    pool = await scaler.pool()
    assert pool.desired_replicas == 2
    assert pool.why
    router.running = 0

    async def asleep() -> bool:
        pool = await scaler.pool()
        return pool.desired_replicas == 0 and not pool.replicas

    await until_async(asleep)
    asked = pb.WakeRequest(tier="small")
    answer = await scaler.stub.Wake(asked, metadata=KEY, timeout=5)
    assert answer.coming
    assert answer.expected_in.ToMilliseconds() > 0
    await scaler.ready(1)
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)


async def test_a_changed_size_needs_no_restart(home):
    home = home(slots=[{}, {}], size=1)
    scaler = await home.start(keep=False)
    (first,) = await scaler.ready(1)
    home.pool["size"] = 2
    home.write()
    both = await scaler.ready(2)
    assert first.id in {one.id for one in both}


async def test_only_services_wake(home, tmp_path):
    scaler = await home(size=0).start(keys_file=key_file(tmp_path))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scaler.stub.Wake(pb.WakeRequest(tier="small"), metadata=CALLER, timeout=5)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_tier_that_none_comes_for_is_told(home):
    scaler = await home(size=0).start()
    answer = await scaler.stub.Wake(pb.WakeRequest(tier="small"), metadata=KEY, timeout=5)
    assert not answer.coming
    assert not answer.HasField("expected_in")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scaler.stub.Wake(pb.WakeRequest(), metadata=KEY, timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_notice_in_a_file_replaces_a_replica_before_it_goes(home):
    home = home(slots=[{}, {}], size=1, notice_seconds=60, drain_seconds=5)
    scaler = await home.start(keep=False)
    (first,) = await scaler.ready(1)
    folder = home.state / "spot-notice"
    folder.mkdir()
    (folder / first.id).write_text("it is gone in two minutes")
    least = 9

    async def replaced() -> bool:
        nonlocal least
        replicas = (await scaler.pool()).replicas
        ready = [one.id for one in replicas if one.state == READY]
        least = min(least, len(ready))
        return bool(ready) and first.id not in {one.id for one in replicas}

    await until_async(replaced)
    assert least == 1, "the other was ready first"


async def test_what_was_spent_and_learned_holds_over_a_restart(home):
    home = home(slots=[{}, {}], size=0, scale=SCALE)
    home.head = {"tick_seconds": 1}
    home.write()
    file = LastingFile(home.state / "history/sizes.json")
    fit = Fit(weight=1.0, constants=(0.02, 0.0, 0.0, 0.0))
    work = WorkMemory(learned=Learned(0.9, fit, fit.capacity))
    wall = time.time()
    spent = Spent((Day(int(wall // DAY_SECONDS), 7.0),), wall)
    await file.keep(Lasting(spent, {("p", MODEL, "int8"): work}))
    before = (home.state / "history/sizes.json").read_bytes()
    scaler = await home.start(keep=False)

    async def decided() -> bool:
        return bool((await scaler.pool()).why)

    await until_async(decided)
    await scaler.stop()
    assert (home.state / "history/sizes.json").read_bytes() != before, "it was written anew"
    found = file.read()
    assert found.spent.usd == 7.0
    assert found.spent.wall > wall
    assert found.work["p", MODEL, "int8"].learned == work.learned
