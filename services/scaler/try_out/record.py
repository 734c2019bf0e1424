"""Whether a trial can be trusted: the file in force, tried, is to do what the record says it did.

The record has the sizes that were wanted and how many answers came late. Sizes that an operator
overrode say nothing of a file, and neither does what was decided before it came in force.
"""

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.scaler.history.decisions import decided_of
from services.scaler.history.journal import GAP, read
from services.scaler.policy.recorded import MINUTE_SECONDS, RecordedMinute
from services.scaler.policy.sizing.views import Bound
from services.scaler.simulator.together import Fared

LEAST_SECONDS = 1800.0
LEAST_ANSWERS = 100
MOST_TIMES = 2.0
"""Mean sizes further apart than this are unlike."""
LEAST_SIZE = 0.5
"""Below it a mean size is as good as none."""
MOST_POINTS = 0.05
"""Shares of answers in time further apart than this are unlike."""


@dataclass(frozen=True)
class Sizes:
    """What a pool was to have, as it was decided.

    Attributes:
        at: when, seconds since 1970, in order.
        sizes: from then on.
        overridden: an operator had a say.
    """

    at: Sequence[float]
    sizes: Sequence[int]
    overridden: bool = False

    def mean(self, since: float, until: float) -> float | None:
        """Between two times; None: it is not on record from the first one on."""
        if not self.at or self.at[0] > since:
            return None
        first = bisect.bisect_right(self.at, since) - 1
        last = bisect.bisect_left(self.at, until)
        edges = np.array([since, *self.at[first + 1 : last], until])
        return float(np.dot(self.sizes[first:last], np.diff(edges)) / (until - since))


def sizes_on_record(folder: Path, pools: Collection[str], since: float) -> dict[str, Sizes]:
    """Sizes that were decided, by pool, with the one that held at `since`. Reads files.

    Raises:
        OSError: the record cannot be read.
    """
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in pools}
    overridden: set[str] = set()
    wanted = set(pools)
    for line in read(folder):
        if not wanted:
            break
        if line is None or GAP in line:
            continue
        try:
            one = decided_of(line)
        except (KeyError, TypeError, ValueError, IndexError):
            continue
        if one.pool not in wanted:
            continue
        found[one.pool].append((one.at, one.decision.size))
        if any(constraint.bound is Bound.OVERRIDE for constraint in one.decision.constraints):
            overridden.add(one.pool)
        if one.at <= since:
            wanted.discard(one.pool)
    return {
        name: Sizes(
            [at for at, _ in sorted(some)], [size for _, size in sorted(some)], name in overridden
        )
        for name, some in found.items()
        if some
    }


@dataclass(frozen=True)
class Record:
    """What is on record of what the file in force did.

    Attributes:
        since, until: seconds since 1970, the part of what is tried in which it was in force.
        sizes: by pool.
    """

    since: float
    until: float
    sizes: Mapping[str, Sizes]

    def doubt(
        self, tried: Mapping[str, Fared], minutes: Sequence[RecordedMinute], wall: float
    ) -> str:
        """Why a tier's trial is not to be trusted, in one sentence; empty: nothing speaks for it.

        Args:
            tried: how its pools fared under the file in force.
            minutes: of the tier.
            wall: the trial's beginning, in seconds since 1970.
        """
        if self.until - self.since < LEAST_SECONDS or not tried:
            return ""
        for name, fared in tried.items():
            of = self.sizes.get(name)
            was = None if of is None or of.overridden else of.mean(self.since, self.until)
            if was is None:
                continue
            is_now = _mean_size(fared, self.since - wall, self.until - wall)
            less, more = sorted((max(was, LEAST_SIZE), max(is_now, LEAST_SIZE)))
            if more > MOST_TIMES * less:
                return (
                    f"the trial is not like the record: tried, the file in force has {name} at "
                    f"{is_now:.1f} replicas on average, and on record are {was:.1f}"
                )
        some = next(iter(tried.values()))
        share = _share_in_time(some, self.since - wall, self.until - wall)
        within = [one for one in minutes if self.since <= one.minute * MINUTE_SECONDS < self.until]
        timed = sum(one.first_texts for one in within)
        if share is None or timed < LEAST_ANSWERS:
            return ""
        real = 1.0 - sum(one.late for one in within) / timed
        if abs(share - real) <= MOST_POINTS:
            return ""
        return (
            "the trial is not like the record: tried, the file in force has "
            f"{share:.1%} of the answers in time, and on record are {real:.1%}"
        )


def _mean_size(fared: Fared, since: float, until: float) -> float:
    ticks = fared.course.ticks
    inside = (ticks.at >= since) & (ticks.at <= until)
    return float(ticks.wanted[inside].mean()) if inside.any() else 0.0


def _share_in_time(fared: Fared, since: float, until: float) -> float | None:
    """Of the answers that begin between two times; None: none does."""
    ticks = fared.course.ticks
    inside = (ticks.at >= since) & (ticks.at <= until)
    begun = float(ticks.begun[inside].sum())
    return 1.0 - float((ticks.late * ticks.begun)[inside].sum()) / begun if begun > 0.0 else None
