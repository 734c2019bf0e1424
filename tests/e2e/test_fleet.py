"""The scaler over the real engine: the shipped pools come up, heal, and end leaving nothing."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import psutil
import pytest
import yaml
from tritonclient.grpc import service_pb2_grpc

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.scaler.targets import processes, tritonserver
from services.scaler.targets.triton_client import TritonClient
from services.scaler.targets.tritonserver import REPLICA_VARIABLE
from tests.e2e.triton_fixtures import Answer, infer_request, read
from tests.integration.scaler.harness import (
    DRAINING,
    GONE,
    KEY,
    READY,
    ROOT,
    ScalerProcess,
    left_of,
    until_async,
)

PROMPT = [[5, 6, 7, 8]]


@pytest.fixture
async def scaler(tmp_path: Path) -> AsyncIterator[ScalerProcess]:
    """A scaler with the pools as shipped, on free ports."""
    declared = yaml.safe_load((ROOT / "policies" / "scaling.yaml").read_text())
    for pool in declared["pools"].values():
        pool["repository"] = str(ROOT / pool["repository"])
        pool["slots"] = [{}, {}]
    home = SimpleNamespace(
        folder=tmp_path,
        scaling=tmp_path / "policies" / "scaling.yaml",
        state=tmp_path / "state",
        starter=None,
    )
    home.scaling.parent.mkdir()
    home.scaling.write_text(yaml.safe_dump(declared))
    running = ScalerProcess(home)
    try:
        await running.start()
        yield running
    finally:
        await running.kill()
        for folder in (home.state / "replicas").glob("*"):
            await processes.kill_family(REPLICA_VARIABLE, folder.name)
            tritonserver.remove_shared_memory(folder.name)


def record(scaler: ScalerProcess, replica: pb.Replica) -> dict[str, Any]:
    path = scaler.settings.state_folder / "replicas" / replica.id / "record.json"
    return json.loads(path.read_text())


async def whole(watch: Any, *tiers: str) -> dict[str, pb.Replica]:
    """The ready replica of each tier, once there is one."""
    ready: dict[str, pb.Replica] = {}
    while not set(tiers) <= set(ready):
        for replica in (await watch.next()).replicas:
            if replica.state == READY:
                ready[replica.tier] = replica
    return ready


async def answer(replica: pb.Replica, tokens: int) -> Answer:
    values = {
        "input_ids": PROMPT,
        "input_lengths": [[4]],
        "request_output_len": [[tokens]],
        "exclude_input_in_output": [[True]],
        "end_id": [[-1]],
        "pad_id": [[0]],
        "streaming": [[True]],
    }
    request = infer_request(replica.model, values, ["output_ids", "sequence_length"], "1")
    result = Answer()
    async with grpc.aio.insecure_channel(replica.address) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(timeout=60)
        await call.write(request)
        while not read(await call.read(), result):
            pass
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    return result


def lives(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_the_shipped_pools_come_up_heal_and_end(scaler: ScalerProcess) -> None:
    async with scaler.watch() as watch:
        ready = await whole(watch, "small", "large")
        for tier, replica in ready.items():
            assert (replica.pool, replica.model) == (f"{tier}-cpu", tier)
            assert (replica.precision, replica.max_in_flight) == ("int8", 64)
            assert len((await answer(replica, 8)).tokens) == 8

        # A stub that dies takes its engine along, and Triton goes on saying that it is ready.
        before = ready["small"]
        (stub,) = record(scaler, before)["stubs"]
        family = set(processes.family(REPLICA_VARIABLE, before.id))
        assert len(family) >= 3  # server, stub, engine
        killed_at = time.monotonic()
        os.kill(stub["pid"], signal.SIGKILL)
        gone, told_at = await watch.until(GONE)
        assert gone.id == before.id
        assert told_at - killed_at < 1.0
        ready |= await whole(watch, "small")
        assert ready["small"].id != before.id
        assert left_of(before.id) == []
        assert not any(lives(pid) for pid in family)

        # A running answer is finished before its replica ends, whatever the scaler was told.
        large = ready["large"]
        entry = record(scaler, large)
        triton = TritonClient("127.0.0.1", entry["grpc_port"], entry["metrics_port"], "large")
        assert await triton.running_requests() == 0
        running = asyncio.create_task(answer(large, 400))
        await until_async(triton.running_requests)
        await triton.close()
        scaler.ask_to_stop()
        states: dict[str, list[int]] = {one.id: [] for one in ready.values()}
        while not all(GONE in seen for seen in states.values()):
            for replica in (await watch.next()).replicas:
                states[replica.id].append(replica.state)
        assert list(states.values()) == [[DRAINING, GONE]] * 2
        result = await asyncio.wait_for(running, 5.0)
        assert (len(result.tokens), result.error) == (400, "")
    await scaler.stop()
    assert scaler.process.returncode == 0
    assert [left_of(one.id) for one in ready.values()] == [[], []]


@pytest.mark.parametrize("parameter", [{"max_seq_len": "64"}, {"kv_cache_blocks": "2"}])
async def test_settings_that_take_less_than_routers_send_cost_no_replica(
    scaler: ScalerProcess, parameter: dict[str, str]
) -> None:
    async with scaler.watch() as watch:
        good = (await whole(watch, "small"))["small"]
    reporting = scaler.stub.ReportLoad(metadata=KEY, timeout=60)
    report = pb.ReportLoadRequest(
        router="r1", tiers=[pb.TierLoad(tier="small", max_sequence_tokens=512)]
    )

    async def refused() -> pb.Pool | None:
        await reporting.write(report)
        pools = (await scaler.stub.ListPools(pb.ListPoolsRequest(), metadata=KEY)).pools
        (pool,) = [one for one in pools if one.tier == "small"]
        return pool if pool.HasField("settings_refusal") else None

    await refused()
    file = scaler.settings.scaling_file
    declared = yaml.safe_load(file.read_text())
    declared["pools"]["small-cpu"]["parameters"] |= parameter
    file.write_text(yaml.safe_dump(declared))
    pool = await until_async(refused, 60)
    assert "does not take the 512 tokens" in pool.settings_refusal.reason
    assert "its new settings are refused" in pool.trouble
    async with scaler.watch() as watch:
        assert (await whole(watch, "small"))["small"].id == good.id
    assert not (await answer(good, 500)).error
    await reporting.done_writing()
    await scaler.stop()
