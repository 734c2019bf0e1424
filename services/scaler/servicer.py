"""The scaler's calls: checks requests, and translates between protobuf and the fleet."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.credentials import Role, current_identity
from services.common.durations import duration_of, set_seconds, set_time
from services.common.errors import BadRequest, Overloaded, Violation
from services.common.refusal import Refusal
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.pools import PoolView
from services.scaler.fleet.scaling_file import ScalingWatch
from services.scaler.fleet.watchers import Seen, Update
from services.scaler.load import reports
from services.scaler.load.loads import Loads, Report
from services.scaler.metrics import Metrics
from services.scaler.policy.demand import Demand
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.policy.sizing.override import unsigned
from services.scaler.pools.pool import Capacity
from services.scaler.wire.decisions import DecisionCalls
from services.scaler.wire.overrides import OverrideCalls
from services.scaler.wire.policies import PolicyCalls
from services.scaler.wire.trials import TrialCalls

HEARTBEAT_SECONDS = 1.0
QUANTILES = (0.5, 0.95)
"""What is shown of how long answers took."""

HIDDEN_TROUBLE = "Something keeps it from its size; a key of an operator is told what."

_STATES = {
    ReplicaState.STARTING: pb.REPLICA_STATE_STARTING,
    ReplicaState.READY: pb.REPLICA_STATE_READY,
    ReplicaState.DRAINING: pb.REPLICA_STATE_DRAINING,
    ReplicaState.GONE: pb.REPLICA_STATE_GONE,
}
_CAPACITIES = {
    Capacity.ON_DEMAND: pb.CAPACITY_KIND_ON_DEMAND,
    Capacity.SPOT: pb.CAPACITY_KIND_SPOT,
}


@dataclass(frozen=True)
class Calls:
    """The calls that are answered elsewhere."""

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
        self._watch = watch
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
        current_identity().require(Role.SERVICE)
        with self._fleet.watch() as watcher:
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

    async def ListPools(
        self,
        _request: pb.ListPoolsRequest,
        _context: grpc.aio.ServicerContext[pb.ListPoolsRequest, pb.ListPoolsResponse],
    ) -> pb.ListPoolsResponse:
        """Lists the pools; any caller may ask, but where replicas are is for operators.

        Replicas ask nobody for a key and charge nobody: who knows where they are and can reach them
        needs neither routes nor prices. What is refused of the file is told to operators too.
        """
        operator = current_identity().may_operate
        response = pb.ListPoolsResponse(
            pools=[self._pool(view, operator=operator) for view in self._fleet.pools()]
        )
        if (refusal := self._watch.refusal) is not None:
            response.refusal.CopyFrom(_refusal(refusal, operator=operator))
        if not operator:
            for pool in response.pools:
                _hide(pool)
        return response

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

    def _pool(self, view: PoolView, *, operator: bool) -> pb.Pool:
        load = self._loads.tier(view.pool.tier, time.monotonic())
        decision = view.decision
        if decision is not None and not operator:
            decision = unsigned(decision)
        result = pb.Pool(
            name=view.name,
            tier=view.pool.tier,
            model=view.pool.model,
            precision=view.pool.precision,
            capacity=_CAPACITIES[view.pool.capacity],
            desired_replicas=view.desired,
            slots=view.capacity or 0,
            replicas=[_replica(seen) for seen in view.replicas],
            trouble=view.trouble,
            waiting=load.waiting,
            running=load.running,
            why="" if decision is None else decision.why,
        )
        if view.typical_start_seconds is not None:
            set_seconds(result.typical_start, view.typical_start_seconds)
        if view.refused is not None:
            result.settings_refusal.CopyFrom(_settings_refusal(view.refused, operator=operator))
        if (demand := self._loads.demand(view.pool.tier, time.monotonic())) is not None:
            result.demand.CopyFrom(_demand(demand))
        return result


def _refusal(refusal: Refusal, *, operator: bool) -> pb.PolicyRefusal:
    message = pb.PolicyRefusal()
    set_time(message.since, refusal.since)
    if operator:
        message.file = refusal.file
        message.problems.extend(
            pb.PolicyProblem(
                line=problem.line, key=problem.key, rule=problem.rule, value=problem.value
            )
            for problem in refusal.problems
        )
    return message


def _settings_refusal(refused: SettingsRefusal, *, operator: bool) -> pb.SettingsRefusal:
    message = pb.SettingsRefusal(reason=refused.reason if operator else HIDDEN_TROUBLE)
    set_time(message.since, refused.since)
    if operator:
        message.changes.extend(
            pb.SettingChange(
                key=change.key, value=_text(change.value), in_force=_text(change.before)
            )
            for change in refused.changes
        )
    return message


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _hide(pool: pb.Pool) -> None:
    """Leaves out what only operators are told; reasons name hosts, ports and files."""
    for replica in pool.replicas:
        replica.ClearField("address")
    if pool.trouble:
        pool.trouble = HIDDEN_TROUBLE


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
            _replica(seen) for seen in update.replicas if not tier or seen.replica.tier == tier
        ],
        revision=update.revision,
    )


def _replica(seen: Seen) -> pb.Replica:
    replica = seen.replica
    started_at = Timestamp()
    set_time(started_at, replica.started_at)
    return pb.Replica(
        id=replica.id,
        pool=replica.pool,
        tier=replica.tier,
        model=replica.model,
        precision=replica.precision,
        address=replica.address,
        state=_STATES[seen.state],
        max_in_flight=replica.max_in_flight,
        started_at=started_at,
        capacity=_CAPACITIES[replica.capacity],
    )


def _demand(demand: Demand) -> pb.Demand:
    return pb.Demand(
        span=duration_of(demand.seconds),
        arrivals_per_second=demand.arrivals_per_second,
        prompt_tokens_per_second=demand.prompt_tokens_per_second,
        output_tokens_per_second=demand.output_tokens_per_second,
        finished_per_second=demand.finished_per_second,
        first_text=_quantiles(demand.first_text_seconds),
        between_tokens=_quantiles(demand.between_tokens_seconds),
    )


def _quantiles(seconds_at: Callable[[float], float | None]) -> list[pb.Quantile]:
    found = [(fraction, seconds_at(fraction)) for fraction in QUANTILES]
    return [
        pb.Quantile(quantile=fraction, value=duration_of(seconds))
        for fraction, seconds in found
        if seconds is not None
    ]
