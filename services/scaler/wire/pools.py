"""ListPools, and how replicas are shown: any known caller may ask.

Where replicas are is for operators: they ask nobody for a key and charge nobody, so who knows where
they are and can reach them needs neither routes nor prices. So is what ails them, as reasons name
hosts, ports and files, and what is refused of the file.
"""

import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.caller_turns import CallerTurns
from services.common.credentials import Identity
from services.common.durations import duration_of, set_seconds, set_time
from services.common.refusal import Refusal
from services.common.shared import Shared
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.pools import PoolView
from services.scaler.fleet.scaling_file import ScalingWatch
from services.scaler.fleet.watchers import Seen
from services.scaler.load.loads import Loads
from services.scaler.policy.demand import Demand
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.policy.sizing.override import unsigned
from services.scaler.pools.pool import Capacity

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


class PoolCalls:
    """The call about pools; see scaler.proto.

    All who ask while a list is made get the next one, so that a crowd costs two lists and not one
    each.
    """

    def __init__(self, fleet: Fleet, watch: ScalingWatch, loads: Loads, turns: CallerTurns) -> None:
        """`turns` are those of all long answers."""
        self._fleet = fleet
        self._watch = watch
        self._loads = loads
        self._turns = turns
        self._for_operators = Shared(lambda: self._list(operator=True))
        self._for_others = Shared(lambda: self._list(operator=False))

    async def list_pools(self, identity: Identity) -> pb.ListPoolsResponse:
        """Lists the pools. Others get the same message: it is not to be changed."""
        lists = self._for_operators if identity.may_operate else self._for_others
        return await lists.get()

    async def _list(self, *, operator: bool) -> pb.ListPoolsResponse:
        def message(view: PoolView) -> pb.Pool:
            return self._pool(view, operator=operator)

        pools = await self._turns.made("who lists pools", self._fleet.pools(), message)
        response = pb.ListPoolsResponse(pools=pools)
        if (refusal := self._watch.refusal) is not None:
            response.refusal.CopyFrom(_refusal(refusal, operator=operator))
        return response

    def _pool(self, view: PoolView, *, operator: bool) -> pb.Pool:
        now = time.monotonic()
        load = self._loads.tier(view.pool.tier, now)
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
            replicas=[replica_message(seen) for seen in view.replicas],
            trouble=view.trouble,
            waiting=load.waiting,
            running=load.running,
            why="" if decision is None else decision.why,
        )
        if view.typical_start_seconds is not None:
            set_seconds(result.typical_start, view.typical_start_seconds)
        if view.refused is not None:
            result.settings_refusal.CopyFrom(_settings_refusal(view.refused, operator=operator))
        if (demand := self._loads.demand(view.pool.tier, now)) is not None:
            result.demand.CopyFrom(_demand(demand))
        if not operator:
            _hide(result)
        return result


def replica_message(seen: Seen) -> pb.Replica:
    """A replica as a message, with its address."""
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
