"""What is to be thought of each tier in a trial, and of all of them."""

from collections.abc import Mapping

import numpy as np

from services.scaler.policy.plans import Verdict
from services.scaler.pools.pool import Pool
from services.scaler.simulator.course import Course, as_one
from services.scaler.simulator.together import Fared
from services.scaler.simulator.verdict import Outcome, judged
from services.scaler.try_out.tiers import Tier

USUAL_LATE_SHARE = 0.01
"""Of the answers, where the policy in force names no share that may be late."""

NOTHING_TO_COMPARE = "there is nothing to compare it with, as only one of the files has it"

_VERDICTS = {
    Outcome.BETTER: Verdict.BETTER,
    Outcome.WORSE: Verdict.WORSE,
    Outcome.SAME: Verdict.SAME,
}


def outcome(
    tier: Tier, live: Mapping[str, Fared], given: Mapping[str, Fared], doubt: str
) -> tuple[Verdict, str]:
    """What is to be thought of one tier. One that is not changed is no reason to doubt.

    `doubt` says why its trial is not to be trusted; empty: it is.
    """
    if tier.untried:
        if tier.same:
            return Verdict.SAME, ""
        return Verdict.UNKNOWN, f"it is not tried: {tier.untried}"
    if not tier.live or not tier.given:
        return Verdict.UNKNOWN, NOTHING_TO_COMPARE
    before, after = parts_of(tier.live, live), parts_of(tier.given, given)
    if doubt and not (tier.same and _alike(before, after)):
        return Verdict.UNKNOWN, doubt
    if _alike(before, after):
        return Verdict.SAME, ""
    pools = {**tier.live, **tier.given}
    prices = {name: pools[name].usd_per_hour for name in {*before, *after}}
    weighed = min(prices.values()) > 0.0 and len(set(prices.values())) > 1
    dearest = max(prices, key=lambda name: (prices[name], name))
    worth = {name: price / prices[dearest] if weighed else 1.0 for name, price in prices.items()}
    found = judged(
        *(as_one(list(of.values()), [worth[name] for name in of]) for of in (before, after)),
        aim=1.0 - _late_share(tier.live),
        unit=f"replica-hours at the price of {dearest}" if weighed else "replica-hours",
    )
    return _VERDICTS[found.outcome], found.why


def _alike(before: Mapping[str, Course], after: Mapping[str, Course]) -> bool:
    """Whether both files wanted the same all the time."""
    return before.keys() == after.keys() and all(
        np.array_equal(one.ticks.wanted, after[name].ticks.wanted) for name, one in before.items()
    )


def parts_of(pools: Mapping[str, Pool], courses: Mapping[str, Fared]) -> dict[str, Course]:
    """Courses of those pools that were tried."""
    return {name: courses[name].course for name in pools if name in courses}


def concluded(outcomes: Mapping[str, tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """One verdict of all tiers: the worst that there is, with its reason."""
    for wanted in (Verdict.WORSE, Verdict.UNKNOWN, Verdict.BETTER, Verdict.SAME):
        for name, (verdict, because) in outcomes.items():
            if verdict is wanted and because:
                return wanted, f"{name}: {because}"
    return Verdict.SAME, "both decide the same"


def _late_share(pools: Mapping[str, Pool]) -> float:
    """Share of the answers that may be late, as the policy in force says."""
    named = [one.scale.work.late_share for one in pools.values() if one.scale and one.scale.work]
    return min(named, default=USUAL_LATE_SHARE)
