"""A scripted router behind the real server: credentials, rich errors, health, real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from services.common.credentials import Keyring, current_identity
from services.common.server import Server, ServerSettings
from services.common.telemetry import Tracing

DECISION = pb.Decision(
    route="support-chat",
    policy_version="v1",
    tier="small",
    model="support-small",
    precision="int8",
    replica="small-0",
    reason=pb.REASON_FIXED_TIER,
    explanation="The route's policy names this tier.",
    cache=pb.CACHE_OUTCOME_MISS,
)


def summary() -> pb.Summary:
    result = pb.Summary(
        handle="h-1",
        decision=DECISION,
        finish_reason=pb.FINISH_REASON_STOP,
        usage=pb.Usage(prompt_tokens=21, output_tokens=7),
        cost=pb.Cost(micro_usd=3, baseline_micro_usd=40),
    )
    result.timings.total.FromMilliseconds(125)
    result.timings.engine.FromMicroseconds(80_500)
    return result


def events(*texts: str) -> list[pb.GenerateResponse]:
    return [
        pb.GenerateResponse(started=pb.Started(handle="h-1", decision=DECISION)),
        *(pb.GenerateResponse(delta=pb.Delta(text=text, tokens=1)) for text in texts),
        pb.GenerateResponse(finished=pb.Finished(summary=summary())),
    ]


Script = Callable[[Any], list[Any]]
"""What to do with a request: messages to send; an exception among them is raised there; an
`asyncio.Event` is waited for."""


@dataclass
class ScriptedRouter(router_pb2_grpc.RouterServiceServicer):
    script: Script = lambda _: events("Your card ", "usually reaches you.")
    requests: list[Any] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def _play(self, request: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        self.tenants.append(current_identity().tenant)
        try:
            for step in self.script(request):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for step in self._play(request):
            yield step

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await anext(self._play(request))

    Explain = Complete
    ListRoutes = Complete


@dataclass
class Stage:
    """A running scripted router."""

    address: str
    router: ScriptedRouter
    server: Server


def serve(router: ScriptedRouter, address: str, **settings_of_tls: Path) -> Server:
    """The router behind the real server, not started yet."""
    settings = ServerSettings(listen=address, drain_seconds=0, **settings_of_tls)
    server = Server(settings, Keyring.load(None), Tracing("router"))
    add = router_pb2_grpc.add_RouterServiceServicer_to_server
    server.add(add, router, "pennyweight.router.v1.RouterService")
    return server
