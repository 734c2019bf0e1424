"""The watch on what all levers of a route lose together.

Each lever alone may lose all that is allowed; together they may not. In one pair their losses add
up to what the answer given lost against the safest setting, as each lever is compared with what is
safer by one. The watch is a record like a lever's, by the name `levers.TOTAL`, in which nobody says
anything but the guardrail. When it finds too much, it names the lever with the most evidence
against it; that one is halted, and the watch begins anew with those that are left.

The two records cannot be written in one step. So the name is written first, whoever sees it halts
the lever, and any later change of a lever makes the next sample begin a watch of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.router.policy.guardrail import Guard, GuardState, seen
from services.router.policy.lever_record import LeverRecord


@dataclass(frozen=True, slots=True)
class Blame:
    """The lever that is halted for what all of them lost, why, and since when."""

    lever: str
    reason: str
    since: float


def total_judged(
    record: LeverRecord,
    levers: Mapping[str, LeverRecord],
    guard: Guard,
    *,
    calibration: str,
    until: float = math.inf,
    losses: Mapping[str, float],
    weight: float,
    now: float,
) -> LeverRecord:
    """Takes a pair.

    Args:
        record: of the watch on all levers together.
        levers: the records of the route's levers.
        guard: what they are held to together.
        calibration: version of the one in force, or empty.
        until: when its youngest evidence was gathered, seconds since 1970; -inf for unknown.
        losses: by lever, what it lost in this pair. Those of halted ones do not count.
        weight: the guardrail's, of this pair, in (0, 1].
        now: seconds since 1970.

    Returns:
        the record as it was, where no lever of the pair is in use.

    Raises:
        ValueError: a loss or the weight is out of range.
    """
    on = {
        lever: loss
        for lever, loss in losses.items()
        if lever in levers and not levers[lever].standing(now, calibration, until).halted
    }
    if not on:
        return record
    known, stamp = record.watch(calibration), _stamp(levers)
    if known is not None and known.levers != stamp:
        record = record.restarted(now)
    # Losses at worst may add up to more than an answer can be worth.
    loss = max(guard.lowest_loss, min(1.0, sum(on.values())))
    after = record.judged(guard, calibration, loss, weight, now)
    watch = after.watch(calibration)
    if watch is None or after is record:
        return after
    watch = replace(watch, levers=stamp)
    if watch.halted is None:
        return after.watched(watch)

    def evidence(lever: str) -> float:
        own = levers[lever].watch(calibration)
        return own.state.evidence if own else 0.0

    return after.watched(
        replace(watch, blamed=max(on, key=evidence), reason=_reason(guard, watch.state))
    )


def blame(record: LeverRecord, levers: Mapping[str, LeverRecord], calibration: str) -> Blame | None:
    """The lever that is to be halted for all and is not yet; None where there is none."""
    watch = record.watch(calibration)
    if watch is None or watch.halted is None or watch.blamed not in levers:
        return None
    if watch.levers != _stamp(levers):  # it was halted, and may have been released since
        return None
    return Blame(watch.blamed, watch.reason, watch.halted)


def _stamp(levers: Mapping[str, LeverRecord]) -> float:
    """Another number after any change of a lever, wherever the routers' clocks are."""
    return sum(lever.changed for lever in levers.values())


def _reason(guard: Guard, state: GuardState) -> str:
    return (
        f"Halted: the levers of the route together: {seen(guard, state)}; recent ones were too"
        " costly to be chance, and this lever has the most evidence against it."
    )
