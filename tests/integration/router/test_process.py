"""The router as it is started: its process, its signals and what it writes."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2
from services.common.config import prefix_of
from tests.integration.common import raw_http2
from tests.integration.router.processes import Process
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    CacheService,
    Caller,
    ScriptedScaler,
    asking,
    read_ledger,
    refusal,
    scrape,
    tokens,
    until,
    write_settings,
)
from tests.integration.scripted_triton import Hold, Refuse, Say, ScriptedTriton, answer
from tests.making.ports import free_port
from tools.metrics import of_every_service, services

PREFIX = prefix_of("router")


class Place:
    """A router process between a scaler, a cache and a replica of the test's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.port, self.metrics_port = free_port(), free_port()
        self.scaler, self.cache, self.triton = ScriptedScaler(), CacheService(), ScriptedTriton()
        self.router: Process

    async def start(self) -> None:
        await self.scaler.start()
        await self.cache.start()
        await self.triton.start()
        for tier in ("small", "careful"):
            self.scaler.tell(
                scaler_pb2.Replica(
                    id=f"{tier}-a",
                    tier=tier,
                    model=tier,
                    precision="int8",
                    address=self.triton.address,
                    state=scaler_pb2.REPLICA_STATE_READY,
                    max_in_flight=8,
                )
            )
        told = write_settings(self.folder) | {
            "listen": f"127.0.0.1:{self.port}",
            "metrics_listen": f"127.0.0.1:{self.metrics_port}",
            "cache_address": f"127.0.0.1:{self.cache.port}",
            "scaler_address": f"127.0.0.1:{self.scaler.port}",
            "log_level": "debug",
        }
        self.router = Process(
            "services.router",
            environ={PREFIX + name.upper(): str(value) for name, value in told.items()},
            errors=self.log,
        )
        await until(lambda: self.scaler.watches)
        async with asyncio.timeout(PATIENCE):
            while not await self.cache.count("streams"):
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.router.kill()
        await self.triton.stop()
        await self.cache.stop()
        await self.scaler.stop()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    one = Place(tmp_path)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def caller(place: Place) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{place.port}") as channel:
        await channel.channel_ready()
        yield Caller(channel)


async def test_a_router_told_to_end_finishes_what_runs_and_takes_nothing_new(
    place: Place, caller: Caller
) -> None:
    said = tokens()
    hold = asyncio.Event()
    place.triton.script = [Say(said[:3]), Hold(hold), Say(said[3:], final=True)]
    call = caller.generate(asking("cached"))
    assert (await call.read()).HasField("started")
    assert (await call.read()).delta.text
    place.router.send(signal.SIGTERM)

    async def refused() -> bool:
        try:
            await caller.stub.ListRoutes(
                pb.ListRoutesRequest(), metadata=caller.metadata, timeout=5
            )
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    async with asyncio.timeout(20):
        while not await refused():
            await asyncio.sleep(0.01)
    hold.set()
    text = ""
    while not (response := await call.read()).HasField("finished"):
        text += response.delta.text
    assert text == HELLO[-len(text) :]
    assert await place.router.ended() == 0
    (record,) = read_ledger(place.folder)
    assert (record["status"], record["cache"]) == ("OK", "miss")
    assert await place.cache.count("stores_total", result="stored") == 1
    last = json.loads(place.log.read_text().splitlines()[-1])
    assert last["event"] == "stopped"
    # The scaler hears of it when nothing runs any more, and last of all.
    *before, farewell = place.scaler.reports
    assert farewell.leaving
    assert not any(report.leaving for report in before)
    assert all(not replica.in_flight for replica in farewell.replicas)


MARKER = "Zebrafinch"


async def test_no_text_of_prompts_or_answers_is_written_anywhere(
    place: Place, caller: Caller
) -> None:
    said = tokens(f"{MARKER} is the answer")
    asked = {
        "content": f"What is {MARKER}? </s>",
        "sampling": pb.Sampling(stop=[f"{MARKER} stop"]),
        "terms": pb.Terms(idempotency_key="once"),
    }
    place.triton.script = answer(said)
    for route in ("chat", "cached", "cached", "careful"):
        assert MARKER in (await caller.ask(asking(route, **asked))).text
        assert MARKER in (await caller.whole(asking(route, **asked))).text
    await caller.refused(asking("chat", MARKER * 1000))
    await caller.refused(asking("chat", sampling=pb.Sampling(stop=[MARKER * 20])))
    place.triton.scripts.append([Refuse("something broke")])
    await caller.refused(asking("chat", **asked))
    place.triton.scripts.append([Say(said[:3]), Refuse("shutting down")])
    await caller.refused(asking("chat", MARKER))  # its text was on its way before
    broken = asking("chat", "MARK").SerializeToString().replace(b"MARK", MARKER.encode() + b"\xff")
    call = caller.channel.unary_unary("/pennyweight.router.v1.RouterService/Complete")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(broken, metadata=caller.metadata, timeout=20)
    assert MARKER not in refusal(caught.value).message
    await until(lambda: len(read_ledger(place.folder)) == 11)
    ledger = "".join(one.read_text() for one in (place.folder / "ledger").iterdir())
    metrics = await asyncio.to_thread(scrape, place.metrics_port)
    place.router.send(signal.SIGTERM)
    await place.router.ended()
    log = place.log.read_text()
    assert "once" in ledger
    assert log.count('"event":"request"') >= 12
    assert 'status="OK"' in metrics
    for written in (log, ledger, metrics):
        assert MARKER.lower() not in written.lower()
        assert MARKER[:5] not in written


async def test_a_request_without_a_key_and_without_a_readable_path_ends_no_router(
    place: Place, caller: Caller
) -> None:
    place.triton.script = answer(tokens())
    heard = await raw_http2.answer(place.port, raw_http2.request(path=b"/t.T/\xdbU"))
    assert heard
    assert (await caller.ask(asking("chat"))).text == HELLO
    place.router.send(signal.SIGTERM)
    assert await place.router.ended() == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    made = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if subprocess.run(made, check=False).returncode:
        pytest.skip("this user cannot make a disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_router_on_a_full_disk_goes_on_answering_and_says_so(disk: Path) -> None:
    place = Place(disk)
    place.triton.script = answer(tokens())
    port = place.metrics_port
    await place.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{place.port}") as channel:
            caller = Caller(channel)
            await caller.ask(asking("chat"))
            fill(disk)
            for _ in range(50):
                assert (await caller.ask(asking("chat"))).text == HELLO
            lost = re.compile(r'log_lost_lines_total{why="failed"} [1-9]')
            async with asyncio.timeout(PATIENCE):
                while not lost.search(page := await asyncio.to_thread(scrape, port)):
                    await asyncio.sleep(0.05)
            for folder in ("ledger", "policy", "state"):
                assert f'folder_free_bytes{{setting="{folder}_folder"}} 0.0' in page
            (disk / "filling").unlink()
            place.router.send(signal.SIGTERM)
            assert await place.router.ended() == 0
        assert json.loads(place.log.read_text().splitlines()[-1])["event"] == "stopped"
    finally:
        await place.stop()


async def test_the_table_of_metrics_has_every_metric_that_is_served(
    place: Place, caller: Caller
) -> None:
    page = await asyncio.to_thread(scrape, place.metrics_port)
    served = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    beside = {name for name in served if name.endswith("_created")}
    listed = {row.name for row in (*services()["router"], *of_every_service())}
    assert served - beside == listed


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    return write_settings(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fixed_tier: small": "fixed_tier: tiny"}, "not in the ladder, got 'tiny'"),
        ({"max_sequence_tokens: 200": "max_sequence_tokens: none"}, "got 'none'"),
    ],
)
def test_a_wrong_policy_stops_the_start(
    told: dict[str, Any], wrong: dict[str, str], said: str
) -> None:
    routes: Path = told["routes_file"]
    for old, new in wrong.items():
        routes.write_text(routes.read_text().replace(old, new, 1))
    ended = subprocess.run(
        [sys.executable, "-m", "services.router"],
        env={PREFIX + name.upper(): str(value) for name, value in told.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert str(routes) in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
