"""The watch on quality: a change detector that halts a lever once it costs more than it may.

Every judged sample brings a paired loss: quality of the top tier minus quality of what the lever
gave, in [-1, 1]. Two things are watched, each by a Shiryaev-Roberts e-detector (Shin, Ramdas and
Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2023), with half
of the weight each:

- the mean loss, whose null is that it is at most `allowed`. For a bet b, a sample gives
      e = 1 + b * weight * (loss - allowed);
- the share of answers that were worse, loss > 0, whose null is that it is at most `allowed_worse` =
  allowed + spare, where `spare` is by how much that share was above the mean loss at calibration:
  the answers that were better made up for so many. A sample gives
      e = 1 + b * weight * ((1 if worse else 0) - allowed_worse) / allowed_worse.
  What is better spreads the mean and says nothing about the worse, so the share tells sooner. Where
  `spare` is not known, the mean alone is watched.

The mean of e is at most 1 under its null, and a detector follows R <- (R + 1) * e. So R - n is a
supermartingale under the null, hence, for the first time T at which R reaches c, E[T] >= E[R at T]
>= c (Doob's optional stopping): the mean number of samples until a false halt, the average run
length, is at least c. The same holds for every mixture: over bets, which finds small losses and big
ones, and over the two nulls, as long as both hold. A new sample starts a detector of its own, so
that long quiet periods are forgotten; the e-CUSUM, which keeps the best start alone, is smaller at
every moment and so slower at the same guarantee.

What follows from the second null: a lever is also halted when more answers are worse and as many
more are better, so that the mean stays as it was. Such answers are not those that were calibrated.

Assumptions: given the past, each judged sample's mean loss and chance to be worse, weighted by the
inverse of its propensity, are within what is allowed while the lever is good. Nothing is assumed
about the shape of the distribution, nor that samples are independent. Where propensities vary,
`weight` is the lowest propensity divided by the sample's own, at most 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BETS = (0.04, 0.08, 0.15, 0.25, 0.35, 0.5, 0.7)
"""On the mean: shares of the largest bet that cannot lose everything, mixed in equal parts."""

WORSE_BETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""On the share of worse answers: (share - allowed) / (1 - allowed) is best, and mostly small."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a watch is set to. State of a policy, not of a request.

    Attributes:
        tolerance: mean loss that was promised at most, in [0, 1).
        level: what a judge that speaks other terms than the promise saw at calibration, where all
            was well: one that compares answers counts every difference as a loss. Neutral: 0.
        run_length: judged samples between false halts, on average and at least.
        lowest_loss: smallest loss the judge can give: -1, or 0 for a judge that never finds the
            lever's answer better. Knowing 0 makes the watch quicker.
        spare: share of worse answers minus mean loss at calibration, in [0, 1]; None where nobody
            knows, so that the share is not watched.
    """

    tolerance: float
    level: float = 0.0
    run_length: float = 100_000.0
    lowest_loss: float = -1.0
    spare: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"tolerance must be in [0, 1), got {self.tolerance}")
        if not -1.0 <= self.level < 1.0:
            raise ValueError(f"level must be in [-1, 1), got {self.level}")
        if not -1.0 <= self.lowest_loss <= 0.0:
            raise ValueError(f"lowest_loss must be in [-1, 0], got {self.lowest_loss}")
        if not self.lowest_loss < self.allowed < 1.0:
            raise ValueError(
                f"tolerance + level must be above {self.lowest_loss} and below 1,"
                f" got {self.allowed}"
            )
        if not (math.isfinite(self.run_length) and self.run_length > 1.0):
            raise ValueError(f"run_length must be above 1 sample, got {self.run_length}")
        if self.spare is not None and not 0.0 <= self.spare <= 1.0:
            raise ValueError(f"spare must be in [0, 1], got {self.spare}")

    @property
    def allowed(self) -> float:
        """Mean loss up to which the lever stays on."""
        return self.tolerance + self.level

    @property
    def allowed_worse(self) -> float | None:
        """Share of worse answers up to which the lever stays on; None where it is not watched."""
        if self.spare is None:
            return None
        share = self.allowed + self.spare
        return share if 0.0 < share < 1.0 else None

    @property
    def largest_bet(self) -> float:
        """The bet on the mean at which the smallest loss would take everything."""
        return 1.0 / (self.allowed - self.lowest_loss)


@dataclass(frozen=True, slots=True)
class GuardState:
    """Where a watch stands; shared by all routers.

    Attributes:
        detectors: of the mean loss, one value a bet.
        worse_detectors: of the share of worse answers, one a bet; none where it is not watched.
        samples: judged samples so far.
        mean_loss: of all samples so far, weighted; what people read, not what decides.
        worse_share: of all samples so far, weighted; the same.
        weights: sum of the weights so far.
        halted: the lever has been found too costly; stays so until a person or a calibration
            starts the watch anew.
    """

    detectors: tuple[float, ...] = (0.0,) * len(BETS)
    worse_detectors: tuple[float, ...] = ()
    samples: int = 0
    mean_loss: float = 0.0
    worse_share: float = 0.0
    weights: float = 0.0
    halted: bool = False

    @property
    def evidence(self) -> float:
        """The detector: it halts the lever once this reaches the run length."""
        return _evidence(self.detectors, self.worse_detectors)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a store."""
        return {
            "detectors": list(self.detectors),
            "worse_detectors": list(self.worse_detectors),
            "samples": self.samples,
            "mean_loss": self.mean_loss,
            "worse_share": self.worse_share,
            "weights": self.weights,
            "halted": self.halted,
        }

    @staticmethod
    def from_json(state: Mapping[str, Any]) -> "GuardState":
        """The state that `as_json` wrote, or a router that watched the mean alone.

        Raises:
            ValueError: it is damaged, or of other bets.
        """
        try:
            detectors = tuple(float(value) for value in state["detectors"])
            worse = tuple(float(value) for value in state.get("worse_detectors", ()))
            samples, halted = int(state["samples"]), state["halted"]
            mean_loss, weights = float(state["mean_loss"]), float(state["weights"])
            worse_share = float(state.get("worse_share", 0.0))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"no state of a guardrail: {error!r}") from error
        values = (*detectors, *worse, weights)
        sound = all(math.isfinite(value) and value >= 0.0 for value in values)
        sized = len(detectors) == len(BETS) and len(worse) in {0, len(WORSE_BETS)}
        if not sized or not sound or samples < 0 or not isinstance(halted, bool):
            raise ValueError("no state of a guardrail: values out of range")
        if not -1.0 <= mean_loss <= 1.0 or not 0.0 <= worse_share <= 1.0:
            raise ValueError(f"no state of a guardrail: mean {mean_loss}, worse {worse_share}")
        return GuardState(detectors, worse, samples, mean_loss, worse_share, weights, halted)


def update(guard: Guard, state: GuardState, loss: float, weight: float = 1.0) -> GuardState:
    """Takes one judged sample.

    Args:
        guard: what the watch is set to.
        state: where it stood.
        loss: quality of the top tier minus quality of what the lever gave.
        weight: lowest propensity of the route divided by this sample's, in (0, 1].

    Raises:
        ValueError: loss or weight out of range: such a sample says nothing.
    """
    if not guard.lowest_loss <= loss <= 1.0:
        raise ValueError(f"loss must be in [{guard.lowest_loss}, 1], got {loss}")
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"weight must be in (0, 1], got {weight}")
    if state.halted:
        return state
    step = guard.largest_bet * weight * (loss - guard.allowed)
    detectors = _followed(state.detectors, BETS, step)
    worse, allowed_worse = float(loss > 0.0), guard.allowed_worse
    worse_detectors: tuple[float, ...] = ()
    if allowed_worse is not None:
        before = state.worse_detectors or (0.0,) * len(WORSE_BETS)
        step = weight * (worse - allowed_worse) / allowed_worse
        worse_detectors = _followed(before, WORSE_BETS, step)
    weights = state.weights + weight
    return GuardState(
        detectors,
        worse_detectors,
        state.samples + 1,
        state.mean_loss + (loss - state.mean_loss) * weight / weights,
        state.worse_share + (worse - state.worse_share) * weight / weights,
        weights,
        _evidence(detectors, worse_detectors) >= guard.run_length,
    )


def seen(guard: Guard, state: GuardState) -> str:
    """What a watch has seen, as part of a sentence."""
    told = (
        f"{state.samples} judged samples lost {100 * state.mean_loss:.1f} points on average, "
        f"{100 * guard.allowed:.1f} are allowed"
    )
    if guard.level:
        told += (
            f" ({100 * guard.tolerance:.1f} by the tolerance, {100 * guard.level:.1f} that the "
            "judge saw at calibration)"
        )
    if guard.allowed_worse is not None:
        told += (
            f"; {100 * state.worse_share:.1f} % of the answers were worse, "
            f"{100 * guard.allowed_worse:.1f} % may be"
        )
    return told


def explain(guard: Guard, state: GuardState) -> str:
    """One sentence a person understands."""
    told = seen(guard, state)
    if state.halted:
        return f"Halted: {told}; recent ones were too costly to be chance."
    share = state.evidence / guard.run_length
    return f"Watching: {told}; the evidence for a halt stands at {share:.1%}."


def _followed(before: tuple[float, ...], bets: tuple[float, ...], step: float) -> tuple[float, ...]:
    """The detectors after a sample; `step` is what it gives for a bet of 1."""
    return tuple(
        (value + 1.0) * (1.0 + bet * step) for value, bet in zip(before, bets, strict=True)
    )


def _evidence(detectors: tuple[float, ...], worse_detectors: tuple[float, ...]) -> float:
    of_mean = sum(detectors) / len(detectors)
    if not worse_detectors:
        return of_mean
    return 0.5 * of_mean + 0.5 * sum(worse_detectors) / len(worse_detectors)
