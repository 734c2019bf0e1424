"""What trials are to take replicas to be, and what `Simulate` is to try: checked and read."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.durations import seconds_of
from services.common.errors import Violation
from services.scaler.policy.plans import COLUMNS, RULES, Scene
from services.scaler.wire.asked import content_violations, refuse

MAX_TIMES = 1e6
MAX_STEP = 60.0
MAX_START = 86_400.0
MAX_SPREAD = 3.0

_GENERATORS = {
    pb.GENERATOR_UNSPECIFIED: "poisson",
    pb.GENERATOR_POISSON: "poisson",
    pb.GENERATOR_STEPS: "steps",
}


def replica_violations(field: str, replica: pb.AssumedReplica) -> Iterator[Violation]:
    """What is wrong with what replicas are to be taken to be."""
    constants = replica.a, replica.b, replica.c, replica.p
    if any(constants) and not (
        0.0 < replica.a <= MAX_STEP and all(0.0 <= one <= MAX_STEP for one in constants)
    ):
        yield Violation(
            field, f"must have a of more than 0, and a, b, c and p of at most {MAX_STEP:g}"
        )
    if replica.HasField("start") and not 0.0 < seconds_of(replica.start) <= MAX_START:
        yield Violation(f"{field}.start", f"must be more than 0 s and at most {MAX_START:,.0f} s")
    if not 0.0 <= replica.start_spread <= MAX_SPREAD:
        yield Violation(f"{field}.start_spread", f"must be 0 to {MAX_SPREAD:g}")


def replica_of(replica: pb.AssumedReplica) -> Mapping[str, Any]:
    """What replicas are to be taken to be; what is not there is as trials know it."""
    found: dict[str, Any] = {}
    if replica.a:
        found["capacity"] = {"a": replica.a, "b": replica.b, "c": replica.c, "p": replica.p}
    if replica.HasField("start"):
        found["start_seconds"] = seconds_of(replica.start)
    if replica.HasField("start_spread"):
        found["start_spread"] = replica.start_spread
    return found


def scene_of(request: pb.SimulateRequest) -> Scene:
    """What a file is to be tried on.

    Raises:
        BadRequest: with all violations.
    """
    wrong = [*content_violations(request.content)] if request.content else []
    if not request.trace:
        wrong.append(Violation("trace", "is required"))
    if not (math.isfinite(request.times) and 0.0 <= request.times <= MAX_TIMES):
        wrong.append(Violation("times", "must be 0 to 1,000,000"))
    if request.generator not in _GENERATORS:
        wrong.append(Violation("generator", "must be poisson or steps"))
    wrong += replica_violations("replica", request.replica)
    wrong += _strange("rows_of", request.rows_of, COLUMNS)
    wrong += _strange("beside", request.beside, RULES)
    if request.rows and request.replica.a:
        wrong.append(Violation("rows", "must not come with constants of the replica"))
    if request.rows_of and not request.rows:
        wrong.append(Violation("rows_of", "needs rows"))
    if len(set(request.beside)) < len(request.beside):
        wrong.append(Violation("beside", "must name each rule once"))
    trace, rows = _text("trace", request.trace, wrong), _text("rows", request.rows, wrong)
    refuse(wrong)
    return Scene(
        trace=trace,
        pool=request.pool,
        times=request.times or 1.0,
        generator=_GENERATORS[request.generator],
        replica=replica_of(request.replica),
        rows=rows,
        rows_of=dict(request.rows_of),
        beside=tuple(request.beside),
        page=request.page,
    )


def _strange(field: str, names: Any, there: tuple[str, ...]) -> Iterator[Violation]:
    for name in names:
        if name not in there:
            yield Violation(field, f"must be among {', '.join(there)}, got {name!r}")


def _text(field: str, data: bytes, wrong: list[Violation]) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        wrong.append(Violation(field, "must be UTF-8 text"))
        return ""
