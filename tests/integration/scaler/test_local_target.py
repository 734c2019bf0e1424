"""Replicas as real Triton processes: they die, hang on, are adopted, drained and ended."""

import asyncio
import json
import os
import signal
import socket
import stat
import time

import grpc
import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common import intake
from services.common.config import ConfigError
from services.scaler.policy.draining import SETTLE_SECONDS
from services.scaler.targets.triton_client import TritonClient
from tests.integration.scaler.harness import (
    DRAINING,
    GONE,
    KEY,
    MODEL,
    READY,
    STARTING,
    infer,
    left_of,
    regions,
    until_async,
)


@pytest.mark.parametrize("victim", ["server", "stub"])
async def test_a_killed_replica_is_gone_at_once_and_replaced(home, victim):
    home = home()
    scaler = await home.start()
    (before,) = await scaler.ready()
    record = home.replicas()[before.id]
    pid = record["server"]["pid"] if victim == "server" else record["stubs"][0]["pid"]
    async with scaler.watch() as watch, scaler.watch(tier="other") as other:
        first = await watch.next()
        assert first.full
        assert [one.id for one in first.replicas] == [before.id]
        assert list((await other.next()).replicas) == []
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        gone, at = await watch.until(GONE)
        assert gone.id == before.id
        assert at - killed_at < 1.0  # 10 ms on a quiet machine
        starting, _ = await watch.until(STARTING)
        after, _ = await watch.until(READY)
        assert starting.id == after.id != before.id
        # A message that only says that the stream lives repeats the revision.
        seen = list(range(first.revision, first.revision + 4))
        assert list(dict.fromkeys(watch.revisions)) == seen
        # Who watches another tier sees no replica, and misses no revision either.
        while other.revisions[-1] < seen[-1]:
            assert not (await other.next()).replicas
        assert list(dict.fromkeys(other.revisions)) == seen
    assert await infer(after.address, 1) == 1
    assert left_of(before.id) == []
    assert (await scaler.pool()).typical_start.ToMilliseconds() > 100


async def test_the_next_scaler_says_how_long_starts_took(home):
    home = home()
    first = await home.start()
    await first.ready()
    took = (await first.pool()).typical_start
    await first.stop()
    second = await home.start()
    await second.ready()
    assert (await second.pool()).typical_start == took


async def test_replicas_outlive_a_scaler_whose_server_ends_by_itself(home, monkeypatch):
    home = home()
    first = await home.start(keep=False)
    (before,) = await first.ready()
    with monkeypatch.context() as patched:
        patched.setattr(intake, "_handle", lambda *_: 1 / 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await first.channel.unary_unary("/t.T/U")(b"", timeout=10)
        await first.ended()
    second = await home.start(keep=False)
    assert [one.id for one in await second.ready()] == [before.id]
    assert await infer(before.address, 1) == 1


async def test_replicas_outlive_a_crashed_scaler_and_are_adopted(home):
    home = home(size=2, slots=[{}, {}])
    first = await home.start_process()
    before = await first.ready(2)
    records = home.replicas()
    await first.kill()
    assert [await infer(one.address, 1) for one in before] == [1, 1]

    # One loses its stub while nobody looks: it must not be adopted.
    broken, whole = sorted(before, key=lambda one: one.id)
    os.kill(records[broken.id]["stubs"][0]["pid"], signal.SIGKILL)
    second = await home.start_process()
    async with second.watch() as watch:
        update = await watch.next()
        assert update.full
        states = {one.id: one.state for one in update.replicas}
        assert states[whole.id] == READY
        assert broken.id not in states
    after = await second.ready(2)
    assert whole.id in {one.id for one in after}
    assert home.replicas()[whole.id] == records[whole.id]
    assert left_of(broken.id) == []
    await second.stop()
    assert second.process.returncode == 0
    assert [left_of(one.id) for one in after] == [[], []]


async def test_a_scale_down_whose_scaler_is_killed_is_finished_by_the_next(home):
    home = home(size=2, slots=[{}, {}], drain_seconds=20)
    first = await home.start_process()
    before = await first.ready(2)
    running = [asyncio.create_task(infer(one.address, 4000)) for one in before]
    async with first.watch() as watch:
        await watch.next()
        home.pool["size"] = 1
        home.write()
        draining, _ = await watch.until(DRAINING)
        await first.kill()
    home.pool["size"] = 2  # it is not taken back, whatever is wanted now
    home.write()
    second = await home.start_process()
    async with second.watch() as watch:
        update = await watch.next()
        states = {one.id: one.state for one in update.replicas}
        assert states.pop(draining.id) == DRAINING
        assert list(states.values()) == [READY]
        gone, _ = await watch.until(GONE)
    assert gone.id == draining.id
    assert await asyncio.gather(*running) == [4000, 4000], "what ran there came to its end"
    assert draining.id not in {one.id for one in await second.ready(2)}


async def test_what_a_replica_holds_is_for_this_user_alone(home):
    home = home()
    scaler = await home.start()
    (one,) = await scaler.ready()
    shared = regions(one.id)
    folder = home.state / "replicas"
    written = [folder / one.id / name for name in ("record.json", "server.log", "view", "tmp")]
    assert shared
    assert [path for path in shared if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(path.exists() for path in written)


async def test_a_scaler_that_leaves_its_replicas_hands_them_over(home):
    home = home()
    first = await home.start()
    (before,) = await first.ready()
    async with first.watch() as watch:
        await watch.next()
        first.ask_to_stop()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watch.next()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    await first.stop()
    assert await infer(before.address, 1) == 1

    # The settings change meanwhile: the old one serves until a new one can.
    home.pool |= {"slots": [{}, {}], "parameters": {"changed": True}}
    home.write()
    second = await home.start()
    async with second.watch() as watch:
        update = await watch.next()
        assert [one.id for one in update.replicas if one.state == READY] == [before.id]
        new, _ = await watch.until(READY)
        draining, _ = await watch.until(DRAINING)
        gone, _ = await watch.until(GONE)
        assert draining.id == gone.id == before.id != new.id


@pytest.mark.parametrize("damage", ["unfinished", "unreadable"])
async def test_damaged_records(home, damage):
    home = home()
    first = await home.start()
    (before,) = await first.ready()
    await first.stop()
    path = home.state / "replicas" / before.id / "record.json"
    if damage == "unfinished":  # as if the scaler had died while it started the process
        record = json.loads(path.read_text()) | {"server": None, "stubs": None}
        path.write_text(json.dumps(record))
    else:
        path.write_text("{")
    second = await home.start()
    (after,) = await second.ready()
    assert (after.id == before.id) is (damage == "unfinished")
    assert list(home.replicas()) == [after.id]
    assert bool(left_of(before.id)) is (damage == "unfinished")


async def test_a_reused_process_id_is_not_taken_for_a_replica(home):
    home = home()
    first = await home.start()
    (before,) = await first.ready()
    await first.stop()
    path = home.state / "replicas" / before.id / "record.json"
    record = json.loads(path.read_text())
    record["server"]["pid"] = os.getpid()
    path.write_text(json.dumps(record))
    second = await home.start()
    (after,) = await second.ready()
    assert after.id != before.id
    assert left_of(before.id) == []


async def test_a_second_scaler_on_the_same_state_is_refused(home):
    home = home(size=0)
    await home.start()
    with pytest.raises(ConfigError, match="another scaler uses it"):
        await home.start()


async def test_a_running_request_is_finished_before_the_end(home):
    home = home()
    scaler = await home.start(keep=False)
    (replica,) = await scaler.ready()
    running = asyncio.create_task(infer(replica.address, 2000))
    await until_async(lambda: running_requests(home, replica.id))
    async with scaler.watch() as watch:
        await watch.next()
        scaler.ask_to_stop()
        draining, _ = await watch.until(DRAINING)
        assert draining.id == replica.id
        assert not running.done()
        await watch.until(GONE)
        # The engine says that it is done just before the answer is on its way.
        assert await asyncio.wait_for(running, 1.0) == 2000
    await scaler.stop()
    assert left_of(replica.id) == []


async def test_a_router_that_still_has_requests_is_waited_for(home):
    home = home()
    scaler = await home.start(keep=False)
    (replica,) = await scaler.ready()
    call = scaler.stub.ReportLoad(metadata=KEY, timeout=30)

    async def report(in_flight: int) -> None:
        load = pb.ReplicaLoad(replica=replica.id, in_flight=in_flight)
        await call.write(pb.ReportLoadRequest(router="r1", replicas=[load]))

    await report(0)
    async with scaler.watch() as watch:
        await watch.next()
        scaler.ask_to_stop()
        await watch.until(DRAINING)
        await report(1)
        gone = asyncio.create_task(watch.until(GONE))
        await asyncio.sleep(2 * SETTLE_SECONDS)  # an idle replica would go in half that time
        assert not gone.done()
        await report(0)
        await asyncio.wait_for(gone, 3.0)
    assert (await call).accepted == 3


async def test_a_taken_port_is_trouble_and_another_slot_is_tried(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        home = home(slots=[{"grpc_port": port}])
        scaler = await home.start()
        trouble = await scaler.trouble(f"port {port} on 127.0.0.1 is taken")
        assert trouble.startswith("slot 0: failed")
        assert "next try in" in trouble
        assert (await scaler.pool()).replicas == []
        await scaler.stop()

        home.pool["slots"] = [{"grpc_port": port}, {}]
        home.write()
        scaler = await home.start()
        (replica,) = await scaler.ready()
        assert replica.id.startswith("p-1-")
        assert (await scaler.pool()).trouble == ""


async def test_a_model_that_does_not_load_is_trouble_until_it_does(home):
    home = home()
    model = home.model / "1" / "model.py"
    good = model.read_text()
    model.write_text("import no_such_module\n")
    scaler = await home.start()
    await scaler.trouble("no_such_module")
    model.unlink()
    await scaler.trouble("model.py: is missing")
    model.write_text(good)
    (replica,) = await scaler.ready()
    assert list(home.replicas()) == [replica.id]


async def test_a_hanging_start_is_given_up(home):
    home = home(start_seconds=1.5)
    model = home.model / "1" / "model.py"
    text = model.read_text().replace("self.family =", "time.sleep(60)\n        self.family =")
    model.write_text(text)
    scaler = await home.start()
    await scaler.trouble("not ready after 1.5 s")


async def running_requests(home, replica_id) -> int | None:
    record = home.replicas()[replica_id]
    client = TritonClient("127.0.0.1", record["grpc_port"], record["metrics_port"], MODEL)
    try:
        return await client.running_requests()
    finally:
        await client.close()
