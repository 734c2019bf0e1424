"""Whether traffic still looks as it did at calibration: a certificate holds for such traffic only.

Watched are the share of requests that escalate to the top tier, and the distributions of predicted
gains and of certainties, each within a band:

- a distribution by its population stability index over bins of equal share at calibration,
  PSI = sum of (now - then) * ln(now / then), with an alert above 0.2 by common practice, or above
  what chance explains where samples are few: under no drift PSI / (1/n + 1/m) is about chi-squared
  with bins - 1 degrees of freedom (Yurdakul, 2018);
- the escalation rate by so many standard errors, and never closer than `MIN_CHANGE`.

Neutral case: no samples, no drift. Leaving a band says that calibration is due, not that answers
are worse; the guardrail watches that.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

BINS = 10
ALERT_PSI = 0.2
DEVIATIONS = 5.0
"""Standard errors that chance is allowed: a band is left by chance less than once in a million."""

MIN_CHANGE = 0.03
"""Change of the escalation rate that is worth an alert, however many samples show it."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution at calibration, in bins of about equal share.

    Attributes:
        edges: ascending; a value belongs to the bin right of the edges that are at most it.
        shares: of each bin, one more than edges; they add up to 1.
        samples: how many values it was made from.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    samples: int

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.edges) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must ascend, with one share more than edges")
        if not all(map(math.isfinite, self.edges)):
            raise ValueError("edges must be finite")
        if self.samples < 1 or not all(0.0 <= share <= 1.0 for share in self.shares):
            raise ValueError("shares must be in [0, 1], of at least 1 sample")
        if abs(sum(self.shares) - 1.0) > 1e-6:  # noqa: PLR2004 -- rounding
            raise ValueError(f"shares must add up to 1, got {sum(self.shares)}")

    @staticmethod
    def of(values: Iterable[float]) -> "Histogram | None":
        """The histogram of some values; None where there are none."""
        known = sorted(value for value in values if math.isfinite(value))
        if not known:
            return None
        edges = sorted({known[len(known) * step // BINS] for step in range(1, BINS)} - {known[0]})
        counts = [0] * (len(edges) + 1)
        for value in known:
            counts[bisect_right(edges, value)] += 1
        return Histogram(tuple(edges), tuple(count / len(known) for count in counts), len(known))

    def bin(self, value: float) -> int:
        """Number of the bin of a value."""
        return bisect_right(self.edges, value)


def psi(histogram: Histogram, counts: Sequence[int]) -> float:
    """Population stability index of counts a bin against the histogram; 0 is no change.

    Every bin counts as holding half a sample more, so that an empty one does not make it infinite.
    """
    if len(counts) != len(histogram.shares):
        raise ValueError(
            f"the histogram has {len(histogram.shares)} bins, got {len(counts)} counts"
        )
    bins, seen = len(counts), sum(counts)
    if seen == 0:
        return 0.0
    total = 0.0
    for share, count in zip(histogram.shares, counts, strict=True):
        then = (share * histogram.samples + 0.5) / (histogram.samples + 0.5 * bins)
        now = (count + 0.5) / (seen + 0.5 * bins)
        total += (now - then) * math.log(now / then)
    return total


def psi_limit(histogram: Histogram, samples: int) -> float:
    """PSI above which so many samples show a drift."""
    if samples < 1:
        return math.inf
    freedom = len(histogram.shares) - 1
    chance = freedom + DEVIATIONS * math.sqrt(2.0 * freedom)
    return max(ALERT_PSI, chance * (1.0 / samples + 1.0 / histogram.samples))


@dataclass(frozen=True, slots=True)
class Rate:
    """A share at calibration, and how many samples it was made from."""

    share: float
    samples: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or self.samples < 1:
            raise ValueError("a rate must be in [0, 1], of at least 1 sample")

    def band(self, samples: int) -> tuple[float, float]:
        """Shares that so many samples may show without a drift."""
        if samples < 1:
            return 0.0, 1.0
        # As of one sample that did and one that did not besides, so that 0 and 1 have a spread.
        middle = (self.share * self.samples + 1.0) / (self.samples + 2.0)
        spread = math.sqrt(middle * (1.0 - middle) * (1.0 / samples + 1.0 / self.samples))
        width = max(MIN_CHANGE, DEVIATIONS * spread)
        return max(0.0, self.share - width), min(1.0, self.share + width)


@dataclass(frozen=True)
class Bands:
    """What a route's traffic looked like at calibration.

    Attributes:
        escalation: share of requests that the top tier answers.
        gains: predicted gain, by lower tier; None where none is predicted.
        certainties: certainty of each lower tier where it runs, in the thresholds' measure.
    """

    escalation: Rate
    gains: tuple[Histogram | None, ...] = ()
    certainties: tuple[Histogram | None, ...] = ()

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Every histogram by its name: `gain.0` is that of the cheapest tier."""
        named = {f"gain.{at}": histogram for at, histogram in enumerate(self.gains)}
        named |= {f"certainty.{at}": histogram for at, histogram in enumerate(self.certainties)}
        return {name: histogram for name, histogram in named.items() if histogram is not None}


@dataclass(frozen=True, slots=True)
class Drifted:
    """One thing that is watched.

    Attributes:
        name: `escalation`, `gain.0`, `certainty.0`.
        value: the rate, or the PSI.
        low: lower end of its band.
        high: upper end.
        samples: seen since the watch began.
    """

    name: str
    value: float
    low: float
    high: float
    samples: int

    @property
    def alert(self) -> bool:
        """Whether it left its band."""
        return self.samples > 0 and not self.low <= self.value <= self.high


@dataclass
class Window:
    """Counts what a route's traffic looks like now; state of one route, emptied by its owner."""

    bands: Bands
    requests: int = 0
    escalated: int = 0
    counts: dict[str, list[int]] = field(default_factory=dict)

    def note(self, name: str, value: float | None) -> None:
        """Counts a predicted gain or a certainty under its name in `Bands.histograms`."""
        histogram = self.bands.histograms.get(name)
        if histogram is None or value is None or not math.isfinite(value):
            return
        counts = self.counts.setdefault(name, [0] * len(histogram.shares))
        counts[histogram.bin(value)] += 1

    def note_answer(self, *, escalated: bool) -> None:
        """Counts a request, and whether the top tier answered it."""
        self.requests += 1
        self.escalated += escalated

    def drift(self) -> list[Drifted]:
        """Everything that is watched, with its band."""
        low, high = self.bands.escalation.band(self.requests)
        rate = self.escalated / self.requests if self.requests else 0.0
        found = [Drifted("escalation", rate, low, high, self.requests)]
        for name, histogram in self.bands.histograms.items():
            counts = self.counts.get(name, [0] * len(histogram.shares))
            seen = sum(counts)
            found.append(
                Drifted(name, psi(histogram, counts), 0.0, psi_limit(histogram, seen), seen)
            )
        return found
