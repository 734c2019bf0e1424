"""Whether one policy did better than another on the same days, and whether that is more than noise.

Both served the same arrivals, so hours are compared one by one: what they differ by is drawn again
from these hours, many times over (a paired block bootstrap), and a difference counts when 99 in
100 such draws have it on the same side. Late answers come first, money second. As many more late
answers as may be late at all count without that: a burst has them all in one hour.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from services.scaler.simulator.course import HOUR, Course
from services.scaler.simulator.silicon import Floats

BLOCK_SECONDS = 3600.0
LEAST_BLOCKS = 8
"""Fewer hours are cut into this many parts."""
DRAWS = 2000
INTERVAL = (0.005, 0.995)
LEAST_POINTS = 0.0005
"""A change of the attainment that is worth the word."""
LEAST_SHARE = 0.005
"""The same of replica-hours, as a share of them."""


class Outcome(StrEnum):
    """Of the candidate, against what is in force."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"


@dataclass(frozen=True)
class Difference:
    """Candidate less live.

    Attributes:
        value: as it was.
        low, high: within which 99 of 100 draws are.
    """

    value: float
    low: float
    high: float

    def above(self, least: float) -> bool:
        """It is at least this much more, beyond noise."""
        return self.value >= least and self.low > 0.0

    def below(self, least: float) -> bool:
        """It is at least this much less, beyond noise."""
        return self.value <= -least and self.high < 0.0


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison.

    Attributes:
        outcome: of the candidate.
        attainment: difference of the shares of answers in time.
        replica_hours: difference of what was paid for.
        why: in a sentence.
    """

    outcome: Outcome
    attainment: Difference
    replica_hours: Difference
    why: str


def judged(
    live: Course,
    candidate: Course,
    *,
    aim: float = 0.99,
    seed: int = 1,
    unit: str = "replica-hours",
) -> Verdict:
    """Compares two runs over the same arrivals.

    Worse is who misses the aim by more; where neither does, who costs more. Better is the reverse.

    Args:
        live: under the policy in force.
        candidate: under the other.
        aim: share of answers that are to begin in time.
        seed: of the draws.
        unit: what replica-hours are called, where they are weighed.

    Raises:
        ValueError: the runs are not over the same time.
    """
    if not np.isclose(live.seconds, candidate.seconds):
        raise ValueError(
            f"runs of {live.seconds:.0f} s and {candidate.seconds:.0f} s do not compare"
        )
    (late, begun, hours), (other_late, other_begun, other_hours) = (
        _blocks(live), _blocks(candidate),
    )  # fmt: skip
    draws = np.random.default_rng(seed).integers(0, len(late), (DRAWS, len(late)))

    def share(missed: Floats, of: Floats) -> Floats:
        return np.asarray(missed[draws].sum(axis=1) / np.maximum(of[draws].sum(axis=1), 1e-9))

    drawn = share(late, begun) - share(other_late, other_begun)
    attainment = _difference(candidate.attainment - live.attainment, drawn)
    more = (other_hours - hours)[draws].sum(axis=1)
    paid = _difference(candidate.replica_hours - live.replica_hours, more)
    outcome, why = _outcome(live, candidate, attainment, paid, aim, unit=unit)
    return Verdict(outcome, attainment, paid, why)


def _outcome(
    live: Course,
    candidate: Course,
    attainment: Difference,
    paid: Difference,
    aim: float,
    *,
    unit: str,
) -> tuple[Outcome, str]:
    shares = f"{100 * candidate.attainment:.2f} % in time instead of {100 * live.attainment:.2f} %"
    much = 1.0 - aim
    falls = attainment.below(LEAST_POINTS) or attainment.value <= -much
    rises = attainment.above(LEAST_POINTS) or attainment.value >= much
    if falls and candidate.attainment < aim:
        return Outcome.WORSE, f"{shares}, where {100 * aim:g} % are the aim"
    if rises and live.attainment < aim:
        return Outcome.BETTER, f"{shares}, where {100 * aim:g} % are the aim"
    hours = (
        f"{candidate.replica_hours:.1f} {unit} instead of {live.replica_hours:.1f}"
        f" ({paid.value / max(live.replica_hours, 1e-9):+.1%}), {shares}"
    )
    least = LEAST_SHARE * live.replica_hours
    if paid.above(least):
        return Outcome.WORSE, hours
    if paid.below(least):
        return Outcome.BETTER, hours
    return Outcome.SAME, f"within what chance makes of it: {hours}"


def _blocks(course: Course) -> tuple[Floats, Floats, Floats]:
    """Late answers, answers and replica-hours, part by part of what is scored."""
    ticks = course.ticks
    end = float(ticks.at[-1])
    begin = end - course.seconds
    count = max(LEAST_BLOCKS, round(course.seconds / BLOCK_SECONDS))
    scored = ticks.at > begin
    at = ticks.at[scored]
    block = np.minimum(((at - begin) / course.seconds * count).astype(int), count - 1)
    apart = np.diff(ticks.at, prepend=0.0)[scored]

    def added(values: Floats) -> Floats:
        return np.asarray(np.bincount(block, weights=values, minlength=count), float)

    begun = ticks.begun[scored]
    hours = (ticks.ready + ticks.starting)[scored] * apart / HOUR
    return added(ticks.late[scored] * begun), added(begun), added(hours)


def _difference(value: float, drawn: Floats) -> Difference:
    low, high = np.quantile(drawn, INTERVAL)
    return Difference(float(value), float(low), float(high))
