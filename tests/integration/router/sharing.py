"""What of a router has to do with levers, with time that passes when told to."""

import math
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from services.router.levers.board import SeenLever, SharedLeverBoard
from services.router.metrics import Metrics
from services.router.policy.calibration import Rung
from services.router.policy.routes import EvidencePolicy, JudgeKind, Judging, Route
from services.router.routes.in_force import InForce
from services.router.state.store import SharedState
from tests.making.policies import compiled, ladder, quality, route

SMALL, STORED = "tier:small", "cache"

CHAT = route(
    "chat",
    *ladder("small", "large"),
    quality=quality(
        Rung(1.0, None),
        run_length=1000.0,
        evidence=EvidencePolicy(judge=Judging(JudgeKind.MODEL)),  # may find answers better
    ),
)


def recalibrated(one: Route, version: str, until: float = math.inf) -> Route:
    assert one.quality is not None
    assert one.quality.calibration is not None
    calibration = replace(one.quality.calibration, version=version, until=until)
    return replace(one, quality=replace(one.quality, calibration=calibration))


@dataclass
class Router:
    """What of a router has to do with levers."""

    levers: SharedLeverBoard
    in_force: InForce
    registry: CollectorRegistry
    now: list[float]

    @property
    def halted(self) -> set[str]:
        return set(self.levers.halted(self.in_force.now.routes["chat"]))

    def seen(self, lever: str = SMALL) -> SeenLever:
        listed = self.levers.listed(self.in_force.now.routes.values())
        return next(one for one in listed if one.name == lever)

    def metric(self, name: str, **labels: str) -> float | None:
        chosen = {"route": "chat", "lever": SMALL, **labels} if labels != {"none": ""} else {}
        return self.registry.get_sample_value(f"pennyweight_router_{name}", chosen)

    async def spoil(self, route: Route = CHAT, lever: str = SMALL) -> None:
        """Bad samples, as many as halt a lever."""
        for _ in range(30):
            await self.levers.judged(route, {lever: 1.0}, 1.0)

    async def pass_seconds(self, seconds: float) -> None:
        self.now[0] += seconds
        await self.levers.refresh()


def router(state: SharedState, chat: Route = CHAT) -> Router:
    in_force, registry, now = InForce(compiled(chat)), CollectorRegistry(), [1.7e9]
    levers = SharedLeverBoard(
        state=state,
        in_force=in_force,
        metrics=Metrics(registry),
        clock=lambda: now[0],
        wall=lambda: now[0],
    )
    return Router(levers, in_force, registry, now)
