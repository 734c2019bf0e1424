"""A scaler as a process of its own, over real Triton servers with a tiny model."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.server import ServerEnded
from services.scaler.__main__ import serve
from services.scaler.config import ScalerSettings
from services.scaler.targets import processes
from services.scaler.targets.tritonserver import (
    REPLICA_VARIABLE,
    remove_shared_memory,
    shared_memory_prefix,
)

ROOT = Path(__file__).resolve().parents[3]
KEY = (("authorization", "Bearer pennyweight-development"),)
MODEL = "waiter"
CONFIG = """\
backend: "python"
input [{name: "milliseconds", data_type: TYPE_INT32, dims: [1]}]
output [{name: "waited", data_type: TYPE_INT32, dims: [1]}]
instance_group [{kind: KIND_CPU, count: 1}]
"""
STARTING, READY = pb.REPLICA_STATE_STARTING, pb.REPLICA_STATE_READY
DRAINING, GONE = pb.REPLICA_STATE_DRAINING, pb.REPLICA_STATE_GONE


class Home:
    """A folder with pools, a model and the scaler's state, which all its scalers share."""

    def __init__(self, folder: Path, **pool: Any) -> None:
        self.folder = folder
        self.model = folder / "models" / MODEL
        (self.model / "1").mkdir(parents=True)
        (self.model / "config.pbtxt").write_text(CONFIG)
        source = Path(__file__).with_name("stand_in_model.py")
        shutil.copy(source, self.model / "1" / "model.py")
        self.scaling = folder / "policies" / "scaling.yaml"
        self.scaling.parent.mkdir()
        self.pool = {
            "tier": "small",
            "model": MODEL,
            "precision": "int8",
            "repository": "models",
            "slots": [{}],
            "size": 1,
            "start_seconds": 30,
            "drain_seconds": 10,
        } | pool
        self.head: dict[str, Any] = {}
        self.write()
        self.state = folder / "state"
        self._scalers: list[Scaler] = []

    def write(self) -> None:
        self.scaling.write_text(yaml.safe_dump({**self.head, "pools": {"p": self.pool}}))

    async def start(self, *, keep: bool = True, keys_file: Path | None = None) -> "Scaler":
        """A scaler in this process; `keep`: when stopped, it leaves its replicas."""
        scaler: Scaler = Scaler(self, keep=keep, keys_file=keys_file)
        self._scalers.append(scaler)
        await scaler.start()
        return scaler

    async def start_process(self) -> "ScalerProcess":
        """A scaler that can be killed; when stopped by SIGTERM it ends its replicas."""
        scaler = ScalerProcess(self)
        self._scalers.append(scaler)
        await scaler.start()
        return scaler

    def replicas(self) -> dict[str, dict[str, Any]]:
        """The records by replica id."""
        return {
            path.parent.name: json.loads(path.read_text())
            for path in (self.state / "replicas").glob("*/record.json")
        }

    async def clean_up(self) -> None:
        for scaler in self._scalers:
            await scaler.stop()
        for folder in (self.state / "replicas").glob("*"):
            await processes.kill_family(REPLICA_VARIABLE, folder.name)
            remove_shared_memory(folder.name)


class Scaler:
    """A scaler and a channel to it."""

    address: str
    channel: grpc.aio.Channel
    stub: "scaler_pb2_grpc.ScalerServiceAsyncStub"

    def __init__(self, home: Home, *, keep: bool, keys_file: Path | None = None) -> None:
        self.settings = ScalerSettings(
            listen="127.0.0.1:0",
            scaling_file=home.scaling,
            state_folder=home.state,
            metrics_listen="127.0.0.1:0",
            stop_replicas_on_exit=not keep,
            keys_file=keys_file,
        )
        self._stop = asyncio.Event()

    async def start(self) -> None:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            serve(self.settings, os.environ, self._stop, port.set_result)
        )
        await asyncio.wait((self._task, port), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        self.connect(port.result())

    def connect(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = scaler_pb2_grpc.ScalerServiceStub(self.channel)

    @asynccontextmanager
    async def watch(self, tier: str = "") -> AsyncIterator["Watch"]:
        call = self.stub.WatchReplicas(
            pb.WatchReplicasRequest(tier=tier), metadata=KEY, timeout=60, wait_for_ready=True
        )
        try:
            yield Watch(call)
        finally:
            call.cancel()

    async def pool(self) -> pb.Pool:
        response = await self.stub.ListPools(pb.ListPoolsRequest(), metadata=KEY, timeout=5)
        return response.pools[0]

    async def ready(self, count: int = 1) -> list[pb.Replica]:
        """The replicas, once that many are ready."""

        async def found() -> list[pb.Replica]:
            replicas = list((await self.pool()).replicas)
            return replicas if [one.state for one in replicas] == [READY] * count else []

        return await until_async(found)

    async def trouble(self, text: str) -> str:
        """The pool's trouble, once it has this text in it."""

        async def found() -> str:
            trouble = (await self.pool()).trouble
            return trouble if text in trouble else ""

        return await until_async(found)

    def ask_to_stop(self) -> None:
        self._stop.set()

    async def ended(self) -> None:
        """Waits until its server has ended by itself, and the scaler with it."""
        with pytest.RaisesGroup(ServerEnded):
            await asyncio.wait_for(asyncio.shield(self._task), 20)

    async def stop(self) -> None:
        """Stops it and waits for its end."""
        self.ask_to_stop()
        await asyncio.gather(self._task, return_exceptions=True)
        if hasattr(self, "channel"):
            await self.channel.close()


class ScalerProcess(Scaler):
    """A scaler as a process of its own."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, keep=False)
        self.log = home.folder / f"scaler-{time.monotonic_ns()}.log"
        values = {
            "LISTEN": "127.0.0.1:0",
            "METRICS_LISTEN": "127.0.0.1:0",
            "SCALING_FILE": str(home.scaling),
            "STATE_FOLDER": str(home.state),
        }
        environment = {f"PENNYWEIGHT_SCALER_{name}": value for name, value in values.items()}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.scaler"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )

    async def start(self) -> None:
        def port() -> int:
            assert self.process.poll() is None, self.log.read_text()
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            return next((one["port"] for one in lines if one["event"] == "serving"), 0)

        self.connect(await until(port))

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def stop(self) -> None:
        self.ask_to_stop()
        await until(lambda: self.process.poll() is not None)
        await self.channel.close()

    async def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait()
        await self.channel.close()


class Watch:
    """A WatchReplicas stream, with what it brought and when."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.revisions: list[int] = []

    async def next(self) -> pb.WatchReplicasResponse:
        response = await self.call.read()
        assert response is not grpc.aio.EOF
        self.revisions.append(response.revision)
        return response

    async def until(self, state: int) -> tuple[pb.Replica, float]:
        """The next replica in this state, and when it was told."""
        while True:
            for replica in (await self.next()).replicas:
                if replica.state == state:
                    return replica, time.monotonic()


async def until(condition: Any, seconds: float = 20) -> Any:
    """What the condition gives, once that is something."""

    async def ask() -> Any:
        return condition()

    return await until_async(ask, seconds)


async def until_async(condition: Any, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return found


async def infer(address: str, milliseconds: int) -> int:
    """Runs a request of that length; returns its answer."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="milliseconds", datatype="INT32", shape=[1])
    request.raw_input_contents.append(milliseconds.to_bytes(4, "little"))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = await stub.ModelInfer(request, timeout=20, wait_for_ready=True)
    return int.from_bytes(response.raw_output_contents[0], "little")


def regions(replica_id: str) -> list[Path]:
    """The shared memory of a replica."""
    return list(Path("/dev/shm").glob(f"{shared_memory_prefix(replica_id)}*"))


def left_of(replica_id: str) -> list[str]:
    """Processes and shared memory of a replica."""
    found = [f"pid {pid}" for pid in processes.family(REPLICA_VARIABLE, replica_id)]
    return found + [path.name for path in regions(replica_id)]
