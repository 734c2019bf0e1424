"""A router as it runs, between a cache, a scaler that the test plays, and replicas on script."""

import asyncio
import contextlib
import hashlib
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from services.cache import __main__ as cache_main
from services.cache.config import CacheSettings
from services.router import __main__ as router_main
from services.router.config import RouterSettings
from services.router.engines.tokenizer import ModelText
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from tests.integration.scripted_triton import Script, ScriptedTriton, answer
from tests.making.calibrations import write_calibration
from tests.making.policies import TOKENIZER
from tests.making.ports import free_port

PATIENCE = 20.0
"""Seconds that a test waits for what must happen, on the slowest machine."""

ROUTES = """\
tiers:
  small: {tier}
  tight: {tier, queue_size: 2}
  careful: {tier, cancel: drain}
  quick: {tier, first_token_seconds: 0.3, idle_seconds: 0.3}
  top: {tier}
  roomy: {tier}
routes:
  chat: {ladder: [small], fixed_tier: small}
  brief:
    ladder: [small]
    fixed_tier: small
    deadline: {default_seconds: 0.6, shortest_seconds: 0.2}
  slow:
    ladder: [small]
    fixed_tier: small
    tenants: [acme]
    deadline: {default_seconds: 3600, shortest_seconds: 1800}
  bounded: {ladder: [small], fixed_tier: small, limits: {seconds: 0.5}}
  cached: {ladder: [small], fixed_tier: small, cache: {use: true}}
  tight: {ladder: [tight], fixed_tier: tight}
  roomy: {ladder: [small, roomy], fixed_tier: roomy}
  careful: {ladder: [careful], fixed_tier: careful}
  careful-cached: {ladder: [careful], fixed_tier: careful, cache: {use: true}}
  quick: {ladder: [quick], fixed_tier: quick}
  theirs: {ladder: [small], fixed_tier: small, tenants: [umbrella]}
  many: {ladder: [small], fixed_tier: small, output_tokens: {default: 16, most: 100000}}
  laddered:
    ladder: [small, top]
    quality: {tolerance: 0.02, calibration: laddered.json, evidence: {share: 0}}
    cache: {use: true}
  streamed:
    ladder: [small, top]
    quality:
      tolerance: 0.02
      calibration: streamed.json
      hold: tokens
      first_tokens: 4
      evidence: {share: 0}
  paired:
    ladder: [small, top]
    quality: {tolerance: 0.02, calibration: paired.json, evidence: {share: 1.0}}
  shadowed:
    ladder: [careful, top]
    quality: {tolerance: 0.02, evidence: {share: 1.0, share_until_calibrated: 1.0}}
  fresh:
    ladder: [small, top]
    quality:
      tolerance: 0.2
      run_length: 50
      calibration: fresh.json
      evidence: {share: 1.0, share_until_calibrated: 1.0, most_running: 64}
"""
TIER = "model: {name}, precision: int8, tokenizer: {tokenizer}, max_sequence_tokens: {most}"

CHECKED = Rung(1.0, -0.5)
"""The small tier's answer stands at this mean log-probability or above."""

MEASURES = {"laddered": Measure.MEAN, "streamed": Measure.FIRST_K, "paired": Measure.MEAN}

KEYS = {"acme": "key-of-acme", "umbrella": "key-of-umbrella"}
CRITICAL_TENANT = "acme"
"""Whose key may say critical."""

OPERATOR = "key-of-operator"

TEXT = ModelText(TOKENIZER)
HELLO = "Hello, you two 🎈!"


def tokens(text: str = HELLO) -> list[int]:
    """What a replica says to say this text."""
    return TEXT.encode_plain(text)


def hello(**told: Any) -> Script:
    """The script of a short good answer."""
    return answer(tokens(), **told)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what or "what should happen did not"
        await asyncio.sleep(0.003)


@dataclass
class Answer:
    """An answer's events."""

    handle: str = ""
    decision: pb.Decision = field(default_factory=pb.Decision)
    pieces: list[pb.Delta] = field(default_factory=list)
    summary: pb.Summary = field(default_factory=pb.Summary)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass
class Refusal:
    """An error as its caller sees it: code, text, and details by their names."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]
    so_far: Answer

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)


def refusal(error: grpc.aio.AioRpcError, so_far: Answer | None = None) -> Refusal:
    """Takes an error apart."""
    details: dict[str, Message] = {}
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        name = packed.type_url.rpartition(".")[2]
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    return Refusal(error.code(), str(error.details()), details, so_far or Answer())


def asking(route: str = "chat", content: str = "hi", **rest: Any) -> pb.GenerateRequest:
    """A request."""
    request = pb.GenerateRequest(route=route, **rest)
    request.prompt.messages.add(role=pb.ROLE_USER, content=content)
    return request


def complete(request: pb.GenerateRequest) -> pb.CompleteRequest:
    """The same request for a whole answer."""
    return pb.CompleteRequest.FromString(request.SerializeToString())


class Caller:
    """Somebody with a key."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str = "acme") -> None:
        self.channel = channel
        self.stub = router_pb2_grpc.RouterServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {KEYS[tenant]}"),)

    def generate(self, request: pb.GenerateRequest, seconds: float | None = PATIENCE) -> Any:
        """The call, to be read or cancelled by the test."""
        return self.stub.Generate(request, metadata=self.metadata, timeout=seconds)

    async def ask(
        self, request: pb.GenerateRequest | None = None, seconds: float | None = PATIENCE
    ) -> Answer:
        """A streamed answer."""
        told = Answer()
        await self._read(request or asking(), seconds, told)
        return told

    async def refused(
        self, request: pb.GenerateRequest | None = None, seconds: float | None = PATIENCE
    ) -> Refusal:
        """The error that a request ends with."""
        told = Answer()
        try:
            await self._read(request or asking(), seconds, told)
        except grpc.aio.AioRpcError as error:
            return refusal(error, told)
        raise AssertionError(f"it was answered: {told}")

    async def whole(
        self, request: pb.GenerateRequest | None = None, seconds: float | None = PATIENCE
    ) -> pb.CompleteResponse:
        """A whole answer."""
        return await self.stub.Complete(
            complete(request or asking()), metadata=self.metadata, timeout=seconds
        )

    async def _read(self, request: pb.GenerateRequest, seconds: float | None, told: Answer) -> None:
        async for response in self.generate(request, seconds):
            match response.WhichOneof("event"):
                case "started":
                    assert not told.handle
                    told.handle = response.started.handle
                    told.decision = response.started.decision
                case "delta":
                    assert told.handle
                    assert response.delta.text
                    told.pieces.append(response.delta)
                case "finished":
                    told.summary = response.finished.summary


class ScriptedScaler(scaler_pb2_grpc.ScalerServiceServicer):
    """A scaler that tells the fleet the test names."""

    def __init__(self) -> None:
        self.fleet: dict[str, scaler_pb2.Replica] = {}
        self.reports: list[scaler_pb2.ReportLoadRequest] = []
        self.watches: set[asyncio.Queue[scaler_pb2.WatchReplicasResponse]] = set()
        self.keys: set[str] = set()
        self.heartbeat_seconds = 1.0
        self.woken: list[str] = []
        self.coming: float | None = None  # seconds until a replica is there; None: none will be
        self.can_wake = False
        self._revision = 0
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens, from the second time on at the same port."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        scaler_pb2_grpc.add_ScalerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Goes away."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def tell(self, *replicas: scaler_pb2.Replica) -> None:
        """Tells changed replicas."""
        self._revision += 1
        for replica in replicas:
            self.fleet[replica.id] = replica
            if replica.state == scaler_pb2.REPLICA_STATE_GONE:
                del self.fleet[replica.id]
        for watch in self.watches:
            watch.put_nowait(
                scaler_pb2.WatchReplicasResponse(replicas=replicas, revision=self._revision)
            )

    def ready(self, tier: str) -> int:
        """Replicas of the tier in the fleet; all are ready."""
        return sum(1 for one in self.fleet.values() if one.tier == tier)

    def skip_a_message(self) -> None:
        """Loses one."""
        self._revision += 1

    async def WatchReplicas(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[scaler_pb2.WatchReplicasResponse]:
        self.keys.add(str(dict(context.invocation_metadata())["authorization"]))
        watch: asyncio.Queue[scaler_pb2.WatchReplicasResponse] = asyncio.Queue()
        self.watches.add(watch)
        try:
            yield scaler_pb2.WatchReplicasResponse(
                full=True, replicas=self.fleet.values(), revision=self._revision
            )
            while True:
                message = scaler_pb2.WatchReplicasResponse(revision=self._revision)
                with contextlib.suppress(TimeoutError):
                    message = await asyncio.wait_for(watch.get(), self.heartbeat_seconds)
                yield message
        finally:
            self.watches.discard(watch)

    async def Wake(  # noqa: N802
        self, request: scaler_pb2.WakeRequest, context: Any
    ) -> scaler_pb2.WakeResponse:
        if not self.can_wake:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "an older scaler")
        self.woken.append(request.tier)
        response = scaler_pb2.WakeResponse(coming=self.coming is not None)
        if self.coming is not None:
            response.expected_in.FromNanoseconds(int(self.coming * 1e9))
        return response

    async def ReportLoad(  # noqa: N802
        self, request_iterator: AsyncIterator[scaler_pb2.ReportLoadRequest], context: Any
    ) -> scaler_pb2.ReportLoadResponse:
        async for report in request_iterator:
            self.reports.append(report)
        return scaler_pb2.ReportLoadResponse(accepted=len(self.reports))


class CacheService:
    """The real cache, in this process."""

    def __init__(self) -> None:
        self.port = 0
        self.metrics_port = free_port()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens, from the second time on at the same port; it comes up empty."""
        self._stop = asyncio.Event()
        settings = CacheSettings(
            listen=f"127.0.0.1:{self.port}", metrics_listen=f"127.0.0.1:{self.metrics_port}"
        )
        started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(cache_main.serve(settings, self._stop, started.set_result))
        await _first(started, self._task)
        self.port = started.result()

    async def stop(self) -> None:
        """Goes away."""
        if self._task is not None:
            self._stop.set()
            await asyncio.wait_for(self._task, PATIENCE)
            self._task = None

    async def count(self, name: str, **labels: str) -> float:
        """One of its metrics; 0 where it was never touched."""
        page = await asyncio.to_thread(scrape, self.metrics_port)
        return find_metric(page, f"pennyweight_cache_{name}", labels)


class World:
    """All of it, and what a test needs to look around."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scaler = ScriptedScaler()
        self.cache = CacheService()
        self.replicas: dict[str, ScriptedTriton] = {}
        self.metrics_port = free_port()
        self.port = 0
        self.settings = write_settings(folder)
        self._stop = asyncio.Event()
        self._router: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def running(self, *, cache: bool, **changes: Any) -> AsyncIterator["World"]:
        """Runs everything but replicas for the length of the block."""
        async with self._stack:
            await self.scaler.start()
            self._stack.push_async_callback(self.scaler.stop)
            if cache:
                await self.cache.start()
                self._stack.push_async_callback(self.cache.stop)
            told = self.settings | changes
            told |= {
                "metrics_listen": f"127.0.0.1:{self.metrics_port}",
                "cache_address": f"127.0.0.1:{self.cache.port or free_port()}",
                "scaler_address": f"127.0.0.1:{self.scaler.port}",
            }
            started = asyncio.get_running_loop().create_future()
            self._router = asyncio.create_task(
                router_main.serve(RouterSettings(**told), self._stop, started.set_result)
            )
            self._stack.push_async_callback(self.stop)
            await _first(started, self._router)
            self.port = started.result()
            await until(lambda: self.scaler.watches)
            yield self

    async def stop(self) -> None:
        """Lets the router end as SIGTERM does."""
        self._stop.set()
        if self._router is not None:
            await asyncio.wait_for(self._router, PATIENCE)

    async def caller(self, tenant: str = "acme", **options: int) -> Caller:
        """Somebody with the tenant's key and a connection of their own."""
        told = {"use_local_subchannel_pool": 1} | options
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=[(f"grpc.{name}", value) for name, value in told.items()],
        )
        await self._stack.enter_async_context(channel)
        return Caller(channel, tenant)

    async def add(
        self, name: str, tier: str = "small", *, script: Any = None, max_in_flight: int = 64
    ) -> ScriptedTriton:
        """Starts a replica and waits until the router knows it."""
        triton = ScriptedTriton(hello() if script is None else script)
        await triton.start()
        self._stack.push_async_callback(triton.stop)
        self.replicas[name] = triton
        await self.tell(name, triton.address, tier, max_in_flight=max_in_flight)
        return triton

    async def tell(self, name: str, address: str, tier: str = "small", **rest: Any) -> None:
        """Tells of a replica that is ready and waits until the router knows it."""
        told = scaler_pb2.Replica(
            id=name,
            tier=tier,
            model=tier,
            precision="int8",
            address=address,
            state=scaler_pb2.REPLICA_STATE_READY,
            max_in_flight=rest.get("max_in_flight", 64),
        )
        self.scaler.tell(told)
        await self.eventually(lambda: self.ready(tier), self.scaler.ready(tier))

    def gone(self, name: str) -> None:
        """Tells that a replica is gone."""
        told = scaler_pb2.Replica()
        told.CopyFrom(self.scaler.fleet[name])
        told.state = scaler_pb2.REPLICA_STATE_GONE
        self.scaler.tell(told)

    async def ready(self, tier: str) -> int:
        """Replicas of the tier that the router finds ready."""
        caller = await self.caller("umbrella")
        told = await caller.stub.ListRoutes(
            pb.ListRoutesRequest(), metadata=caller.metadata, timeout=PATIENCE
        )
        return next(
            rung.ready_replicas for one in told.routes for rung in one.ladder if rung.name == tier
        )

    async def eventually(self, look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
        """Waits until looking gives what is wanted."""
        end = time.monotonic() + PATIENCE
        while (seen := await look()) != wanted:
            assert time.monotonic() < end, f"still {seen}, not {wanted}"
            await asyncio.sleep(0.005)

    async def ledger(self, records: int) -> list[dict[str, Any]]:
        """The ledger, once it has that many records."""
        await until(lambda: len(self.written()) >= records, f"fewer than {records} records")
        return self.written()

    async def ended(self, requests: int) -> None:
        """Waits until that many requests have ended, though something may still run for them."""

        async def enough() -> bool:
            lines = (await self.metrics()).splitlines()
            found = [one for one in lines if one.startswith("pennyweight_router_requests_total{")]
            return sum(float(line.split()[-1]) for line in found) >= requests

        await self.eventually(enough, wanted=True)

    def written(self) -> list[dict[str, Any]]:
        """The ledger now."""
        return read_ledger(self.folder)

    async def metrics(self) -> str:
        """What Prometheus would see."""
        return await asyncio.to_thread(scrape, self.metrics_port)

    async def metric(self, name: str, **labels: str) -> float:
        """One metric's value; 0 where it was never touched."""
        return find_metric(await self.metrics(), f"pennyweight_router_{name}", labels)


def find_metric(page: str, name: str, labels: Mapping[str, str]) -> float:
    """One metric's value on a page; 0 where it was never touched."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    start = f"{name}{{{inside}}} " if labels else f"{name} "
    lines = (line for line in page.splitlines() if line.startswith(start))
    return next((float(line.split()[-1]) for line in lines), 0.0)


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """All records in a world's ledger."""
    return [
        json.loads(line)
        for file in sorted((folder / "ledger").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def scrape(port: int) -> str:
    """The metrics page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
        return str(page.read().decode())


def write_settings(folder: Path) -> dict[str, Any]:
    """Writes policies, keys and secret of a world; returns the settings that name them."""
    policies = folder / "policies"
    policies.mkdir()
    routes, tiers = ROUTES, ("small", "tight", "careful", "quick", "roomy", "top")
    for tier in tiers:
        most = 1_000_000 if tier == "roomy" else 200
        told = TIER.format(name=tier, tokenizer=TOKENIZER, most=most)
        routes = routes.replace(f"  {tier}: {{tier", f"  {tier}: {{{told}")
    (policies / "routes.yaml").write_text(routes)
    prices = "".join(f"  {tier}: {{prompt: 100000, output: 400000}}\n" for tier in tiers[:-1])
    prices += "  top: {prompt: 800000, output: 3200000}\n"
    (policies / "prices.yaml").write_text(f"tiers:\n{prices}")
    for route, measure in MEASURES.items():
        ladder = ("small", "top")
        write_calibration(policies / f"{route}.json", route, ladder, CHECKED, measure=measure)
    keys = "".join(
        f"  - {{sha256: {hashlib.sha256(key.encode()).hexdigest()}, tenant: {tenant}"
        f"{', critical: true' if tenant == CRITICAL_TENANT else ''}}}\n"
        for tenant, key in KEYS.items()
    )
    operator = hashlib.sha256(OPERATOR.encode()).hexdigest()
    keys += f"  - {{sha256: {operator}, tenant: acme, role: operator}}\n"
    (folder / "keys.yaml").write_text(f"keys:\n{keys}")
    (folder / "handle_key").write_text("a secret of the tests")
    return {
        "listen": "127.0.0.1:0",
        "name": "router-1",
        "routes_file": policies / "routes.yaml",
        "prices_file": policies / "prices.yaml",
        "keys_file": folder / "keys.yaml",
        "handle_key_file": folder / "handle_key",
        "ledger_folder": folder / "ledger",
        "state_folder": folder / "state",
        "policy_folder": folder / "versions",
        "probe_engines": False,  # tests say what replicas receive
        "drain_seconds": PATIENCE,
    }


async def _first(started: "asyncio.Future[Any]", task: "asyncio.Task[Any]") -> None:
    """Waits until it has started, or fails as it failed."""
    await asyncio.wait((started, task), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task


def texts(answers: Sequence[Answer]) -> set[str]:
    """The different texts among answers."""
    return {one.text for one in answers}
