"""Starts services and what stands around them for a benchmark, and ends all of it.

Everything runs below one temporary folder, on free ports, each process in a group of its own, on
the cores it is given. Leaving the block ends every process and removes the folder.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.http2 import request_headers
from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from services.common.config import prefix_of
from services.common.credentials import DEVELOPMENT_KEY
from services.local.plan import FULL_NAMES

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = ROOT / "model_repository" / "cpu"
METADATA = (("authorization", f"Bearer {DEVELOPMENT_KEY}"),)

READY_SECONDS = 90.0
END_SECONDS = 30.0

EAGER = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 20),
)
"""Channel options that find a server soon after it begins to listen."""

Cores = tuple[int, ...]


class BenchError(Exception):
    """A benchmark cannot go on; the message says why."""


@dataclass(frozen=True)
class Usage:
    """What a process has used so far, in seconds.

    Attributes:
        at: when this was so, on the monotonic clock.
        processor: processor time of all its threads.
        waited: time in which its first thread could have run and its core was busy with others.
    """

    at: float
    processor: float
    waited: float

    def since(self, earlier: "Usage") -> "Usage":
        """What it used from then to now; `at` is the seconds between."""
        return Usage(
            self.at - earlier.at, self.processor - earlier.processor, self.waited - earlier.waited
        )


class Process:
    """A child process in a group of its own."""

    def __init__(self, name: str, child: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.child = child
        self.log = log
        self._seen = psutil.Process(child.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    def usage(self) -> Usage:
        """What it has used so far."""
        times = self._seen.cpu_times()
        waited = Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]
        return Usage(time.monotonic(), times.user + times.system, int(waited) / 1e9)

    def check(self) -> None:
        """Raises `BenchError` with the end of its log if it has ended."""
        if self.child.poll() is not None:
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BenchError(f"{self.name} ended with code {self.child.returncode}:\n{end}")

    def end(self) -> None:
        """Ends it in order, or by force after a while, and what is left of its group."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Stack:
    """A context manager: inside it processes can be started, after it none of them is left."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pennyweight-bench-"))
        self.processes: dict[str, Process] = {}
        self._starting: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in reversed(list(self.processes)):
            self.processes.pop(name).end()
        self._end_replicas()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        cores: Cores = (),
        pipe: bool = False,
    ) -> Process:
        """Starts a process; with `pipe` its standard output is read, else it goes to its log."""
        log = self.folder / f"{name}.log"
        bound = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        with log.open("wb") as output:
            child = subprocess.Popen(
                [*bound, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.processes[name] = process = Process(name, child, log)
        return process

    def scripted(self, *, tokens: int, pieces: int, cores: Cores = ()) -> dict[str, str]:
        """Starts a scripted replica. Returns the addresses of `replica` and `scaler`."""
        options = {
            "tokenizer": REPOSITORY / "small" / "weights" / "int8",
            "tokens": tokens,
            "pieces": pieces,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        process = self.start(
            "scripted", [sys.executable, "-m", "bench.scripted", *words], cores=cores, pipe=True
        )
        output: Any = process.child.stdout
        line = output.readline()
        if not line:
            process.child.wait()
            process.check()
        given: dict[str, str] = json.loads(line)
        return given

    def service(
        self, name: str, settings: Mapping[str, object], *, cores: Cores = ()
    ) -> tuple[Process, str]:
        """Starts a service of ours; `ready` waits for it. Returns it and its address."""
        address = f"127.0.0.1:{free_port()}"
        given = {"LISTEN": address, "METRICS_LISTEN": f"127.0.0.1:{free_port()}", **settings}
        environment = {f"{prefix_of(name)}{key}": str(given[key]) for key in given}
        process = self.start(
            name, [sys.executable, "-m", f"services.{name}"], environment, cores=cores
        )
        self._starting[name] = address
        return process, address

    def ready(self) -> None:
        """Waits until every service started so far is healthy."""
        for name, address in self._starting.items():
            with grpc.insecure_channel(address, options=EAGER) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service=FULL_NAMES[name])

                def is_healthy(health: Any = health, request: Any = request) -> bool:
                    answer = health.Check(request, timeout=2)
                    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

                self._until(is_healthy, self.processes[name])
        self._starting.clear()

    def cache(self, settings: Mapping[str, object] | None = None, *, cores: Cores = ()) -> str:
        """Starts a cache. Returns its address."""
        return self.service("cache", settings or {}, cores=cores)[1]

    def scaler(self, pools: Mapping[str, object]) -> str:
        """Starts a scaler with these pools. Returns its address."""
        policies = self.folder / "policies"
        policies.mkdir(exist_ok=True)
        file = policies / "scaling.yaml"
        file.write_text(yaml.safe_dump({"pools": dict(pools)}))
        settings = {"SCALING_FILE": file, "STATE_FOLDER": self.folder / "scaler"}
        return self.service("scaler", settings)[1]

    def router(
        self,
        routes: Mapping[str, object],
        *,
        cache: str,
        scaler: str,
        cores: Cores = (),
    ) -> tuple[Process, str]:
        """Starts a router and waits until all is healthy and each of its tiers has a replica.

        Args:
            routes: what routes.yaml says.
            cache: address of the cache.
            scaler: address of the scaler.
            cores: the cores it may use.
        """
        policies = self.folder / "policies"
        policies.mkdir(exist_ok=True)
        tiers: Any = routes["tiers"]
        prices = {"tiers": {name: {"prompt": 100_000, "output": 400_000} for name in tiers}}
        (policies / "routes.yaml").write_text(yaml.safe_dump(dict(routes)))
        (policies / "prices.yaml").write_text(yaml.safe_dump(prices))
        given = {
            "ROUTES_FILE": policies / "routes.yaml",
            "PRICES_FILE": policies / "prices.yaml",
            "LEDGER_FOLDER": self.folder / "ledger",
            "POLICY_FOLDER": self.folder / "versions",
            "CACHE_ADDRESS": cache,
            "SCALER_ADDRESS": scaler,
        }
        process, address = self.service("router", given, cores=cores)
        self.ready()
        with grpc.insecure_channel(address, options=EAGER) as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)

            def has_replicas() -> bool:
                found = stub.ListRoutes(
                    router_pb2.ListRoutesRequest(), metadata=METADATA, timeout=2
                )
                return all(tier.ready_replicas for route in found.routes for tier in route.ladder)

            self._until(has_replicas, process)
        return process, address

    def _until(self, is_so: Any, process: Process) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            process.check()
            with contextlib.suppress(grpc.RpcError):
                if is_so():
                    return
            time.sleep(0.05)
        raise BenchError(f"{process.name} was not ready after {READY_SECONDS:.0f} s")

    def _end_replicas(self) -> None:
        """Replicas outlive a scaler that did not end in order: ours name our folder."""
        left = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or ()
            if any(str(self.folder) in word for word in words):
                with contextlib.suppress(psutil.Error):
                    left += [*process.children(recursive=True), process]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def tier(model: str, **changes: object) -> dict[str, object]:
    """A tier of routes.yaml; the scripted one tokenises as the small model does."""
    folder = "small" if model == "scripted" else model
    return {
        "model": model,
        "precision": "none" if model == "scripted" else "int8",
        "tokenizer": str(REPOSITORY / folder / "weights" / "int8"),
        "max_sequence_tokens": 512,
        "queue_size": 1024,
        **changes,
    }


def route(model: str, *, cache: bool) -> dict[str, object]:
    """A route of routes.yaml to one tier."""
    return {
        "ladder": [model],
        "fixed_tier": model,
        "output_tokens": {"default": 64, "most": 512},
        "cache": {"use": cache, "ttl_seconds": 3600, "wait_seconds": 10},
    }


def pool(model: str, **parameters: object) -> dict[str, object]:
    """A pool of scaling.yaml with one replica of a local model."""
    return {
        "tier": model,
        "model": model,
        "precision": "int8",
        "repository": str(REPOSITORY),
        "slots": [{"grpc_port": 0, "metrics_port": 0}],
        "size": 1,
        "max_in_flight": 64,
        "parameters": {key: str(value).lower() for key, value in parameters.items()},
    }


def router_headers(method: str, address: str) -> bytes:
    """What opens a call of the router's `method`, with the development key and a deadline."""
    path = f"/pennyweight.router.v1.RouterService/{method}"
    return request_headers(path, address, grpc_timeout="30S", **dict(METADATA))
