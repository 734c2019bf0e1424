"""A scripted router behind the real server: credentials, rich errors, health, real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from services.common.credentials import Keyring, current_identity
from services.common.server import Server
from services.common.server_settings import ServerSettings
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

ESCALATED = pb.Decision(
    route="support-chat",
    policy_version="v2",
    tier="large",
    model="support-large",
    precision="int8",
    replica="large-0",
    reason=pb.REASON_ESCALATED,
    explanation="large answers: small was not sure of its answer.",
    cache=pb.CACHE_OUTCOME_MISS,
    candidates=[
        pb.Candidate(
            tier="small",
            verdict=pb.VERDICT_UNSURE,
            predicted_gain=0.031,
            skip_above_gain=0.08,
            certainty=-0.71,
            accept_at_certainty=-0.45,
            micro_usd=3,
        ),
        pb.Candidate(tier="large", verdict=pb.VERDICT_CHOSEN),
    ],
    calibration_version="2026-11-02-1a2b",
    evidence_propensity=0.05,
    halted_levers=["cache"],
)


def lever(**changes: Any) -> pb.Lever:
    made = pb.Lever(
        route="support-chat",
        name="tier:small",
        state=pb.LEVER_STATE_HALTED,
        author="ada",
        reason="wrong answers about fees",
        watch=pb.LeverWatch(
            samples=1204, mean_loss=0.004, allowed_loss=0.02, evidence=0.31, run_length=100_000
        ),
    )
    made.since.FromJsonString("2026-11-02T10:00:00Z")
    made.expires.FromJsonString("2026-11-02T12:00:00Z")
    made.MergeFrom(pb.Lever(**changes))
    return made


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
`asyncio.Event` is waited for; a status ends the call with nothing else."""


@dataclass
class ScriptedRouter(router_pb2_grpc.RouterServiceServicer):
    script: Script = lambda _: events("Your card ", "usually reaches you.")
    requests: list[Any] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def _play(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        self.tenants.append(current_identity().tenant)
        try:
            for step in self.script(request):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, grpc.StatusCode):
                    await context.abort(step, "")
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for step in self._play(request, context):
            yield step

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await anext(self._play(request, context))

    Explain = Complete
    ListRoutes = Complete
    RecordOutcome = Complete
    ListLevers = Complete
    SetLever = Complete


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
    server.add(add, router)
    return server
