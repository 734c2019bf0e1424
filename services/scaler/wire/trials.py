"""PlanPolicy and Simulate: trials, which stream how far they are."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.credentials import Identity, Role
from services.common.durations import set_seconds, set_time
from services.scaler.changes.trying import Trying
from services.scaler.policy.plans import (
    Assumed,
    Course,
    Difference,
    Plan,
    PoolPlan,
    Simulation,
    Verdict,
)
from services.scaler.wire.asked import content_violations, refuse, span_of, span_violations
from services.scaler.wire.scenes import replica_of, replica_violations, scene_of

MICRO = 1_000_000
PROGRESS_SECONDS = 0.5

T = TypeVar("T")

VERDICTS: dict[str, pb.PlanVerdict.ValueType] = {
    Verdict.SAME: pb.PLAN_VERDICT_SAME,
    Verdict.BETTER: pb.PLAN_VERDICT_BETTER,
    Verdict.WORSE: pb.PLAN_VERDICT_WORSE,
    Verdict.UNKNOWN: pb.PLAN_VERDICT_UNKNOWN,
}


class TrialCalls:
    """The calls that try scaling files; see scaler.proto."""

    def __init__(self, trying: Trying) -> None:
        self._trying = trying

    async def plan(
        self, request: pb.PlanPolicyRequest, identity: Identity
    ) -> AsyncGenerator[pb.PlanPolicyResponse, None]:
        """Tries a file beside the one in force.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: with all violations.
            ServiceError: see `Trials.run`.
        """
        identity.require(Role.OPERATOR)
        refuse(
            [
                *content_violations(request.content),
                *span_violations(request),
                *(
                    wrong
                    for name, replica in request.replicas.items()
                    for wrong in replica_violations(f"replicas[{name}]", replica)
                ),
            ]
        )
        seconds = span_of(request)
        asked = {name: replica_of(one) for name, one in request.replicas.items()}
        async for step in _steps(
            lambda told: self._trying.plan(
                request.content,
                seconds,
                told,
                asked=asked,
                page=request.page,
                caller=identity.share,
            )
        ):
            if isinstance(step, float):
                yield pb.PlanPolicyResponse(progress=step)
            else:
                yield pb.PlanPolicyResponse(plan=plan_message(step))

    async def simulate(
        self, request: pb.SimulateRequest, identity: Identity
    ) -> AsyncGenerator[pb.SimulateResponse, None]:
        """Tries a file on a trace.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: with all violations.
            ServiceError: see `Trials.run`.
        """
        identity.require(Role.OPERATOR)
        scene = scene_of(request)
        async for step in _steps(
            lambda told: self._trying.simulate(request.content, scene, told, caller=identity.share)
        ):
            if isinstance(step, float):
                yield pb.SimulateResponse(progress=step)
            else:
                yield pb.SimulateResponse(simulation=_simulation(step))


async def _steps(
    work: Callable[[Callable[[float], None]], Coroutine[Any, Any, T]],
) -> AsyncGenerator[float | T, None]:
    """How far the work is, now and then, and what came of it; without a reader it is cancelled."""
    told = [0.0]
    task = asyncio.create_task(work(lambda share: told.__setitem__(0, share)))
    try:
        while not (await asyncio.wait((task,), timeout=PROGRESS_SECONDS))[0]:
            yield told[0]
        yield task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def plan_message(plan: Plan) -> pb.Plan:
    """A plan as a message."""
    message = pb.Plan(
        verdict=VERDICTS[plan.verdict],
        because=plan.because,
        pools=[_pool(name, pool) for name, pool in sorted(plan.pools.items())],
        recorded_share=plan.recorded_share,
        live=None if plan.live is None else _course(plan.live),
        planned=None if plan.planned is None else _course(plan.planned),
        reason_needed=plan.reason_needed,
        page=plan.page,
    )
    if plan.since is not None:
        set_time(message.since, plan.since)
    if plan.until is not None:
        set_time(message.until, plan.until)
    return message


def _pool(name: str, pool: PoolPlan) -> pb.PoolPlan:
    return pb.PoolPlan(
        pool=name,
        live=None if pool.live is None else _course(pool.live),
        planned=None if pool.planned is None else _course(pool.planned),
        differences=[_difference(one) for one in pool.differences],
        differences_found=pool.differences_found,
        replica=None if pool.replica is None else _replica(pool.replica),
        untried=pool.untried,
    )


def _difference(one: Difference) -> pb.Difference:
    message = pb.Difference(
        live_size=one.live_size,
        planned_size=one.planned_size,
        live_why=one.live_why,
        planned_why=one.planned_why,
    )
    set_time(message.since, one.since)
    set_time(message.until, one.until)
    return message


def _replica(assumed: Assumed) -> pb.AssumedReplica:
    one = assumed.capacity
    message = pb.AssumedReplica(
        a=one.a, b=one.b, c=one.c, p=one.p, start_spread=assumed.start_spread, source=assumed.source
    )
    set_seconds(message.start, assumed.start_seconds)
    return message


def _course(course: Course) -> pb.Course:
    message = pb.Course(
        replica_hours=course.replica_hours,
        micro_usd=round(course.usd * MICRO),
        attainment=course.attainment,
        changes_per_hour=course.changes_per_hour,
        wasted_hours=course.wasted_hours,
        max_size=course.max_size,
        bounds=[
            pb.BoundShare(
                bound=pb.Bound.Value(f"BOUND_{one.bound.upper()}"),
                detail=one.detail,
                share=one.share,
            )
            for one in course.bounds
        ],
    )
    set_seconds(message.mean_wait, course.mean_wait_seconds)
    return message


def _simulation(simulation: Simulation) -> pb.Simulation:
    message = pb.Simulation(
        pool=simulation.pool,
        course=_course(simulation.course),
        requests=simulation.requests,
        page=simulation.page,
        replica=_replica(simulation.replica),
        arrivals=simulation.arrivals,
        beside=[
            pb.Baseline(name=one.name, title=one.title, course=_course(one.course), knobs=one.knobs)
            for one in simulation.beside
        ],
    )
    set_seconds(message.span, simulation.seconds)
    return message
