"""The engine's processes behind a real Triton: how they load, die and are replaced."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from engines.cpu.process.unproven import TOO_FULL
from services.scaler.targets.triton_client import TritonClient
from tests.e2e.triton_fixtures import (
    REPOSITORY,
    Held,
    Triton,
    collect,
    finish,
    start,
    until,
)

PROMPT = [1, 4, 100, 200, 300, 5]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


def alive(process: psutil.Process) -> bool:
    """Also false for what is dead and waits for its parent to notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_engine_fails_its_streams_fast_and_comes_back(directory: Path) -> None:
    with Triton(directory, "large") as server:
        server.wait_ready()
        (engine,) = server.engines()
        with ThreadPoolExecutor(4) as pool:
            with Held(server) as held:
                requests = [server.request([1, 2, 3], 900) for _ in range(4)]
                calls = [server.stub.ModelStreamInfer(iter([request])) for request in requests]
                futures = [pool.submit(collect, call) for call in calls]
                until(lambda: server.active() == 4)
                held.run()
                killed = time.monotonic()
                engine.kill()
            answers = [future.result(timeout=5) for future in futures]
        assert all("the engine process ended" in answer.error for answer in answers)
        assert max(answer.at[-1] for answer in answers) - killed < 0.1
        refused = server.generate([1, 2], 3)
        assert "not at ready state" in refused.error
        until(lambda: not server.generate([1, 2], 3).error, seconds=10)
        assert server.engines() != [engine]


def test_a_killed_server_takes_stub_engine_and_shared_memory_along(directory: Path) -> None:
    with Triton(directory) as server:
        server.wait_ready()
        family = [psutil.Process(pid) for pid in server.stubs()] + server.engines()
        assert len(family) == 2
        assert server.shared_memory()
        with Held(server) as engine:
            call = server.stub.ModelStreamInfer(iter([server.request(PROMPT, 1000)]))
            engine.run()
            server.process.kill()
        with pytest.raises(grpc.RpcError) as caught:
            collect(call)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert until(lambda: not any(alive(process) for process in family)) < 0.5
        assert server.shared_memory() == []


def test_an_engine_whose_stub_was_killed_does_not_stay(directory: Path) -> None:
    with Triton(directory) as server:
        server.wait_ready()
        start(server, PROMPT, 1000)
        (engine,) = server.engines()
        (stub,) = server.stubs()
        os.kill(stub, signal.SIGKILL)
        until(lambda: not alive(engine))


def test_sigterm_ends_an_idle_server_in_order(directory: Path) -> None:
    with Triton(directory) as server:
        server.wait_ready()
        family = [psutil.Process(pid) for pid in server.stubs()] + server.engines()
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert not any(alive(process) for process in family)
        assert server.shared_memory() == []


# Loading


def broken(directory: Path, damage: Callable[[Path], None]) -> str:
    """A copy of the small model's folder, damaged; what the server said before it ended."""
    copy = directory / f"broken-{len(list(directory.iterdir()))}"
    shutil.copytree(REPOSITORY / "small", copy / "small")
    # The model's source is found from its real place.
    model = copy / "small" / "1" / "model.py"
    model.unlink()
    model.symlink_to(REPOSITORY / "small" / "1" / "model.py")
    damage(copy / "small")
    parameters = {"model": str(copy / "small" / "weights" / "int8")}
    with Triton(directory, repository=copy, parameters=parameters) as server:
        assert server.process.wait(20) != 0
        return server.log.read_text()


def test_a_corrupt_model_folder_fails_the_load_with_its_reason(directory: Path) -> None:
    graph = "openvino_model.xml"

    def truncate(folder: Path) -> None:
        path = folder / "weights" / "int8" / graph
        path.write_text(path.read_text()[:2000])

    said = broken(directory, truncate)
    assert "weights/int8: OpenVINO cannot load it" in said
    assert "failed to load all models" in said


def test_missing_weights_fail_the_load_with_their_path(directory: Path) -> None:
    said = broken(directory, lambda folder: (folder / "weights/int8/openvino_model.bin").unlink())
    assert "openvino_model.bin: is missing" in said


# Silence, and memory that only a new process gives back


async def test_a_replica_is_ready_only_while_its_engine_answers(directory: Path) -> None:
    with Triton(directory) as server:
        server.wait_ready()
        launch = server.launch
        client = TritonClient("127.0.0.1", launch.grpc_port, launch.metrics_port, server.model)
        try:
            assert await client.is_ready()
            with Held(server):
                async with asyncio.timeout(30):
                    while await client.is_ready():
                        await asyncio.sleep(0.2)
            async with asyncio.timeout(30):
                while not await client.is_ready():
                    await asyncio.sleep(0.2)
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({}, ""), ({"max_seq_len": "64"}, "max_seq_len"), ({"kv_cache_blocks": "2"}, "KV-cache")],
    ids=["as it is", "short", "small cache"],
)
async def test_a_replica_says_whether_it_takes_what_routers_send(
    directory: Path, parameters: dict[str, str], words: str
) -> None:
    with Triton(directory, parameters=parameters) as server:
        server.wait_ready()
        launch = server.launch
        client = TritonClient("127.0.0.1", launch.grpc_port, launch.metrics_port, server.model)
        try:
            assert await client.is_ready()
            said = await client.too_long(512)
            assert said is not None
            assert words in said
            assert bool(said) is bool(words)
            assert await client.too_long(60) == ""
            assert await client.running_requests() == 0
        finally:
            await client.close()


def test_an_engine_that_stands_still_is_replaced(directory: Path) -> None:
    with Triton(directory, parameters={"max_silence_ms": "8000"}) as server:
        server.wait_ready()
        (engine,) = server.engines()
        with Held(server):
            answer = server.generate(PROMPT, 900)
        assert "the engine said nothing for" in answer.error
        until(lambda: not alive(engine))
        until(lambda: not server.generate(PROMPT, 3).error, seconds=20)


def of_form(server: Triton, number: int, source: str = "") -> str:
    """Asks for an answer of a large form, another one for each number; the error, if any."""
    names = [f"name {number} {one}" for one in range(150)]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}}
    return server.generate(
        PROMPT,
        20,
        end_id=2,
        source=source,
        guided_decoding_guide_type="json_schema",
        guided_decoding_guide=json.dumps(schema),
    ).error


def test_an_engine_that_guides_fill_is_replaced_and_no_request_fails(directory: Path) -> None:
    with Triton(directory, "large", parameters={"max_guide_memory_mb": "32"}) as server:
        server.wait_ready()
        (first,) = server.engines()
        call, answer = start(server, PROMPT, 900)
        asked = 0
        while len(server.engines()) == 1 and asked < 200:
            assert not of_form(server, asked)
            asked += 1
        assert len(finish(call, answer).tokens) == 900
        until(lambda: not alive(first), seconds=30)
        assert not server.generate(PROMPT, 5).error


def test_a_caller_who_fills_an_engine_with_guides_fills_no_other(directory: Path) -> None:
    with Triton(directory, "large", parameters={"max_guide_memory_mb": "32"}) as server:
        server.wait_ready()
        (engine,) = server.engines()
        asked = 0
        while not (error := of_form(server, asked, "many")) and asked < 200:
            asked += 1
        assert TOO_FULL in error
        time.sleep(1.0)  # so long the engine may keep to itself what it holds against whom
        for _ in range(2):  # it has turned since then
            assert not of_form(server, 0, "many"), "what it has it may use"
        assert server.engines() == [engine]
        engine.kill()
        until(lambda: not server.generate(PROMPT, 3).error, seconds=20)
        assert TOO_FULL in of_form(server, asked, "many")
        assert not of_form(server, asked, "another")
