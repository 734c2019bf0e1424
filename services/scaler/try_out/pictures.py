"""The page that shows both files of a plan beside each other, pool by pool."""

from collections.abc import Mapping
from datetime import UTC, datetime

from services.scaler.policy.plans import PoolPlan
from services.scaler.policy.recorded import MINUTE_SECONDS
from services.scaler.simulator.page import MAX_PARTS, Part, pages
from services.scaler.simulator.together import Fared


def page_of(
    pools: Mapping[str, PoolPlan],
    courses: tuple[Mapping[str, Fared], Mapping[str, Fared]],
    verdict: str,
    first: int,
    count: int,
) -> str:
    """The page; of too many pools those that differ. Empty: nothing was tried.

    Args:
        pools: what is told of each.
        courses: under the file in force and under the other.
        verdict: in a sentence.
        first: minute since 1970.
        count: of minutes.
    """
    parts = []
    for name in sorted(pools, key=lambda one: (not pools[one].differences, one))[:MAX_PARTS]:
        by = zip(("in force", "planned"), courses, strict=True)
        if some := {which: of[name].course for which, of in by if name in of}:
            parts.append(Part(name, some))
    if not parts:
        return ""
    hidden = len(pools) - len(parts)
    begin, end = (
        datetime.fromtimestamp(minute * MINUTE_SECONDS, UTC).strftime("%Y-%m-%d %H:%M UTC")
        for minute in (first, first + count)
    )
    left_out = f" {hidden} pools are not shown." if hidden else ""
    note = f"Recorded load, {begin} to {end}. {verdict}.{left_out}"
    return pages("Plan of a scaling file", note, parts)
