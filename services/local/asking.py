"""How the services of the stack are, as they say themselves when they are asked."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pennyweight.answers import PolicyRefusal
from pennyweight.channel import metadata_for, open_channel
from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from pennyweight.wire import refusal_of
from services.local.plan import Plan

CALL_SECONDS = 2.0


@dataclass(frozen=True)
class Step:
    """Something the start waits for: what, how it is, whether that will do."""

    name: str
    state: str
    done: bool


class Asking:
    """Asks the services of a plan, whether or not they run.

    Attributes:
        channels: to each, by name.
        metadata: that calls go with.
    """

    def __init__(self, plan: Plan) -> None:
        self.channels = {one.name: open_channel(one.address) for one in plan.services}
        self.metadata = metadata_for(plan["router"].address, plan.key())
        self._plan = plan

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self.channels.values():
            await channel.close()

    async def pools(self) -> list[scaler_pb2.Pool]:
        """The pools as the scaler lists them; none while it cannot be asked."""
        stub = scaler_pb2_grpc.ScalerServiceStub(self.channels["scaler"])
        request = scaler_pb2.ListPoolsRequest()
        try:
            found = await stub.ListPools(request, timeout=CALL_SECONDS, metadata=self.metadata)
        except grpc.aio.AioRpcError:
            return []
        return list(found.pools)

    async def refusals(self) -> list[PolicyRefusal]:
        """Policy files that router and scaler refuse; of one that cannot be asked nothing."""
        router = router_pb2_grpc.RouterServiceStub(self.channels["router"])
        scaler = scaler_pb2_grpc.ScalerServiceStub(self.channels["scaler"])
        options: dict[str, Any] = {"timeout": CALL_SECONDS, "metadata": self.metadata}
        answers = await asyncio.gather(
            router.ListRoutes(router_pb2.ListRoutesRequest(), **options),
            scaler.ListPools(scaler_pb2.ListPoolsRequest(), **options),
            return_exceptions=True,
        )
        return [
            refusal_of(answer.refusal)
            for answer in answers
            if not isinstance(answer, BaseException) and answer.HasField("refusal")
        ]

    async def troubles(self) -> list[str]:
        """What ails tiers, a sentence each; empty while the router cannot be asked."""
        tiers = {one.name: one.trouble for one in await self._listed() if one.trouble}
        return [f"tier {name}: {trouble}" for name, trouble in sorted(tiers.items())]

    async def steps(self) -> tuple[Step, ...]:
        """How far the start is, service by service, pool by pool and tier by tier."""
        names = [service.name for service in self._plan.services]
        healthy, pools, tiers = await asyncio.gather(
            asyncio.gather(*(self._is_healthy(name) for name in names)),
            self.pools(),
            self._listed(),
        )
        steps = [
            Step(name, "ready" if is_healthy else "starting", is_healthy)
            for name, is_healthy in zip(names, healthy, strict=True)
        ]
        steps += [_pool_step(pool) for pool in pools]
        if not pools:
            steps.append(Step("replicas", "waiting for the scaler", done=False))
        without = sorted(
            {
                f"{tier.name} ({tier.trouble})" if tier.trouble else tier.name
                for tier in tiers
                if not tier.ready_replicas
            }
        )
        state = (
            f"no replica yet for {', '.join(without)}" if without else "every tier has a replica"
        )
        if not tiers:
            state = "waiting for the router"
        steps.append(Step("routes", state, bool(tiers) and not without))
        return tuple(steps)

    async def _is_healthy(self, name: str) -> bool:
        return await self.health(name) == health_pb2.HealthCheckResponse.SERVING

    async def health(self, name: str) -> int | None:
        """What a service says of its health; None: it does not answer."""
        stub: Any = health_pb2_grpc.HealthStub(self.channels[name])
        request = health_pb2.HealthCheckRequest(service=self._plan[name].full_name)
        try:
            answer = await stub.Check(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        return int(answer.status)

    async def _listed(self) -> list[router_pb2.Tier]:
        """Tiers as the router sees them, route by route; empty while it cannot be asked."""
        stub = router_pb2_grpc.RouterServiceStub(self.channels["router"])
        request = router_pb2.ListRoutesRequest()
        try:
            found = await stub.ListRoutes(request, timeout=CALL_SECONDS, metadata=self.metadata)
        except grpc.aio.AioRpcError:
            return []
        return [tier for route in found.routes for tier in route.ladder]


def _pool_step(pool: scaler_pb2.Pool) -> Step:
    ready = sum(one.state == scaler_pb2.REPLICA_STATE_READY for one in pool.replicas)
    state = f"{ready} of {pool.desired_replicas} ready"
    if pool.trouble:
        state += f" ({pool.trouble})"
    return Step(f"pool {pool.name}", state, ready >= pool.desired_replicas)
