"""The scaler's calls: checks requests, and translates between protobuf and the fleet."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.caller_turns import CallerTurns
from services.common.credentials import Role, current_identity
from services.common.durations import set_seconds
from services.common.errors import BadRequest, Overloaded, Violation
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.scaling_file import ScalingWatch
from services.scaler.fleet.watchers import Update
from services.scaler.load import reports
from services.scaler.load.loads import Loads, Report
from services.scaler.metrics import Metrics
from services.scaler.wire.decisions import DecisionCalls
from services.scaler.wire.overrides import OverrideCalls
from services.scaler.wire.policies import PolicyCalls
from services.scaler.wire.pools import PoolCalls, replica_message
from services.scaler.wire.trials import TrialCalls

HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Calls:
    """The calls that are answered elsewhere, and the turns of answers that take long."""

    turns: CallerTurns
    decisions: DecisionCalls
    policies: PolicyCalls
    overrides: OverrideCalls
    trials: TrialCalls


class ScalerServicer(scaler_pb2_grpc.ScalerServiceServicer):
    """pennyweight.scaler.v1.ScalerService."""

    def __init__(
        self, fleet: Fleet, watch: ScalingWatch, loads: Loads, metrics: Metrics, calls: Calls
    ) -> None:
        self._fleet = fleet
        self._calls = calls
        self._pools = PoolCalls(fleet, watch, loads, calls.turns)
        self._loads = loads
        self._metrics = metrics
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends the load streams, which routers would keep open for ever."""
        self._closing.set()

    async def WatchReplicas(
        self,
        request: pb.WatchReplicasRequest,
        _context: grpc.aio.ServicerContext[pb.WatchReplicasRequest, pb.WatchReplicasResponse],
    ) -> AsyncIterator[pb.WatchReplicasResponse]:
        """Streams the fleet, its changes and a sign of life."""
        identity = current_identity()
        identity.require(Role.SERVICE)
        with self._fleet.watch(identity.share) as watcher:
            revision = 0
            while True:
                update = await watcher.next(HEARTBEAT_SECONDS)
                if update is None:
                    yield pb.WatchReplicasResponse(revision=revision)
                    continue
                revision = update.revision
                yield _watch_response(update, request.tier)

    async def ReportLoad(
        self,
        request_iterator: AsyncIterator[pb.ReportLoadRequest],
        _context: grpc.aio.ServicerContext[pb.ReportLoadRequest, pb.ReportLoadResponse],
    ) -> pb.ReportLoadResponse:
        """Takes a router's reports until it ends its stream, or we go away."""
        current_identity().require(Role.SERVICE)
        accepted = 0
        router = ""
        async with aclosing(_until(self._closing, request_iterator)) as requests:
            async for request in requests:
                self._take(reports.checked(request, router), request.router)
                router = request.router
                accepted += 1
        return pb.ReportLoadResponse(accepted=accepted)

    async def Wake(
        self,
        request: pb.WakeRequest,
        _context: grpc.aio.ServicerContext[pb.WakeRequest, pb.WakeResponse],
    ) -> pb.WakeResponse:
        """Says whether a tier without replicas gets one, and sees to that where one may come."""
        current_identity().require(Role.SERVICE)
        if not request.tier:
            raise BadRequest.of(Violation("tier", "must be set"))
        expected = self._fleet.wake(request.tier)
        self._metrics.wakes.labels("none" if expected is None else "coming").inc()
        response = pb.WakeResponse(coming=expected is not None)
        if expected is not None:
            set_seconds(response.expected_in, expected)
        return response

    async def ListPools(self, request: pb.ListPoolsRequest, context: Any) -> pb.ListPoolsResponse:
        """See scaler.proto."""
        return await self._pools.list_pools(current_identity())

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, context: Any
    ) -> pb.ListDecisionsResponse:
        """See scaler.proto."""
        return await self._calls.decisions.list_decisions(request, current_identity())

    async def WatchDecisions(
        self, request: pb.WatchDecisionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchDecisionsResponse]:
        """See scaler.proto."""
        watching = self._calls.decisions.watch_decisions(request, current_identity())
        async with aclosing(watching) as responses:
            async for response in responses:
                yield response

    async def ValidatePolicy(
        self, request: pb.ValidatePolicyRequest, context: Any
    ) -> pb.ValidatePolicyResponse:
        """See scaler.proto."""
        return await self._calls.policies.validate(request, current_identity())

    async def PlanPolicy(
        self, request: pb.PlanPolicyRequest, context: Any
    ) -> AsyncIterator[pb.PlanPolicyResponse]:
        """See scaler.proto."""
        async with aclosing(self._calls.trials.plan(request, current_identity())) as responses:
            async for response in responses:
                yield response

    async def ApplyPolicy(
        self, request: pb.ApplyPolicyRequest, context: Any
    ) -> pb.ApplyPolicyResponse:
        """See scaler.proto."""
        return await self._calls.policies.apply(request, current_identity())

    async def ListPolicyVersions(
        self, request: pb.ListPolicyVersionsRequest, context: Any
    ) -> pb.ListPolicyVersionsResponse:
        """See scaler.proto."""
        return await self._calls.policies.versions(request, current_identity())

    async def RollbackPolicy(
        self, request: pb.RollbackPolicyRequest, context: Any
    ) -> pb.RollbackPolicyResponse:
        """See scaler.proto."""
        return await self._calls.policies.roll_back(request, current_identity())

    async def SetOverride(
        self, request: pb.SetOverrideRequest, context: Any
    ) -> pb.SetOverrideResponse:
        """See scaler.proto."""
        return await self._calls.overrides.set_override(request, current_identity())

    async def ClearOverride(
        self, request: pb.ClearOverrideRequest, context: Any
    ) -> pb.ClearOverrideResponse:
        """See scaler.proto."""
        return await self._calls.overrides.clear_override(request, current_identity())

    async def ListOverrides(
        self, request: pb.ListOverridesRequest, context: Any
    ) -> pb.ListOverridesResponse:
        """See scaler.proto."""
        return self._calls.overrides.list_overrides(current_identity())

    async def Simulate(
        self, request: pb.SimulateRequest, context: Any
    ) -> AsyncIterator[pb.SimulateResponse]:
        """See scaler.proto."""
        async with aclosing(self._calls.trials.simulate(request, current_identity())) as responses:
            async for response in responses:
                yield response

    def _take(self, report: Report, router: str) -> None:
        if not self._loads.take(router, report, time.monotonic()):
            raise Overloaded(
                "too many routers report", reason="TOO_MANY_ROUTERS", retry_after_seconds=60.0
            )
        self._metrics.reports.inc()


async def _until(
    closing: asyncio.Event, requests: AsyncIterator[pb.ReportLoadRequest]
) -> AsyncGenerator[pb.ReportLoadRequest, None]:
    """The requests, until they end or `closing` is set."""
    closed = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            following = asyncio.ensure_future(anext(requests, None))
            try:
                await asyncio.wait((following, closed), return_when=asyncio.FIRST_COMPLETED)
                request = following.result() if following.done() else None
            finally:
                following.cancel()
            if request is None:
                return
            yield request
    finally:
        closed.cancel()


def _watch_response(update: Update, tier: str) -> pb.WatchReplicasResponse:
    """The update; a change of another tier still comes, empty, so that no revision is missing."""
    return pb.WatchReplicasResponse(
        full=update.full,
        replicas=[
            replica_message(seen)
            for seen in update.replicas
            if not tier or seen.replica.tier == tier
        ],
        revision=update.revision,
    )
