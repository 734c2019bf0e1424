"""The watch on quality: a change detector that halts a lever once it costs more than it may.

Every judged sample brings a paired loss: quality of the top tier minus quality of what the lever
gave, in [-1, 1]. Null: its mean is at most `allowed` = tolerance + level at calibration. The
detector is a Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric
framework for sequential change detection", 2023). For a bet b, each sample gives

    e = 1 + b * weight * (loss - allowed),   whose mean is at most 1 under the null,

and the detector follows R <- (R + 1) * e. So R - n is a supermartingale under the null, hence, for
the first time T at which R reaches c, E[T] >= E[R at T] >= c (Doob's optional stopping): the mean
number of samples until a false halt, the average run length, is at least c. The same holds for a
mixture over bets, which finds small losses and big ones. A new sample starts a detector of its own,
so that long quiet periods are forgotten; the e-CUSUM, which keeps the best start alone, is smaller
at every moment and so slower at the same guarantee.

Assumptions: given the past, each judged sample's mean loss, weighted by the inverse of its
propensity, is within what is allowed while the lever is good. Nothing is assumed about the shape of
the distribution, nor that samples are independent. Where propensities vary, `weight` is the lowest
propensity divided by the sample's own, at most 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BETS = (0.04, 0.08, 0.15, 0.25, 0.35, 0.5, 0.7)
"""Shares of the largest bet that cannot lose everything, mixed in equal parts."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a watch is set to. State of a policy, not of a request.

    Attributes:
        tolerance: mean loss the route's policy allows, in [0, 1).
        level: mean loss measured when the lever was calibrated, in the judge's own terms: a judge
            that compares answers sees disagreement, an upper bound on loss, even where all is well.
        run_length: judged samples between false halts, on average and at least.
        lowest_loss: smallest loss the judge can give: -1, or 0 for a judge that never finds the
            lever's answer better. Knowing 0 makes the watch quicker.
    """

    tolerance: float
    level: float = 0.0
    run_length: float = 100_000.0
    lowest_loss: float = -1.0

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

    @property
    def allowed(self) -> float:
        """Mean loss up to which the lever stays on."""
        return self.tolerance + self.level

    @property
    def largest_bet(self) -> float:
        """The bet at which the smallest loss would take everything."""
        return 1.0 / (self.allowed - self.lowest_loss)


@dataclass(frozen=True, slots=True)
class GuardState:
    """Where a watch stands; shared by all routers.

    Attributes:
        detectors: one value a bet.
        samples: judged samples so far.
        mean_loss: of all samples so far, weighted; what people read, not what decides.
        weights: sum of the weights so far.
        halted: the lever has been found too costly; stays so until a person or a calibration
            starts the watch anew.
    """

    detectors: tuple[float, ...] = (0.0,) * len(BETS)
    samples: int = 0
    mean_loss: float = 0.0
    weights: float = 0.0
    halted: bool = False

    @property
    def evidence(self) -> float:
        """The detector: it halts the lever once this reaches the run length."""
        return sum(self.detectors) / len(self.detectors)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a store."""
        return {
            "detectors": list(self.detectors),
            "samples": self.samples,
            "mean_loss": self.mean_loss,
            "weights": self.weights,
            "halted": self.halted,
        }

    @staticmethod
    def from_json(state: Mapping[str, Any]) -> "GuardState":
        """The state that `as_json` wrote.

        Raises:
            ValueError: it is damaged, or of other bets.
        """
        try:
            detectors = tuple(float(value) for value in state["detectors"])
            samples, halted = int(state["samples"]), state["halted"]
            mean_loss, weights = float(state["mean_loss"]), float(state["weights"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"no state of a guardrail: {error!r}") from error
        sound = all(math.isfinite(value) and value >= 0.0 for value in (*detectors, weights))
        if len(detectors) != len(BETS) or not sound or samples < 0 or not isinstance(halted, bool):
            raise ValueError("no state of a guardrail: values out of range")
        if not -1.0 <= mean_loss <= 1.0:
            raise ValueError(f"no state of a guardrail: mean_loss {mean_loss} is not in [-1, 1]")
        return GuardState(detectors, samples, mean_loss, weights, halted)


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
    detectors = tuple(
        (value + 1.0) * (1.0 + bet * step) for value, bet in zip(state.detectors, BETS, strict=True)
    )
    weights = state.weights + weight
    mean_loss = state.mean_loss + (loss - state.mean_loss) * weight / weights
    halted = sum(detectors) / len(detectors) >= guard.run_length
    return GuardState(detectors, state.samples + 1, mean_loss, weights, halted)


def explain(guard: Guard, state: GuardState) -> str:
    """One sentence a person understands."""
    seen = (
        f"{state.samples} judged samples lost {100 * state.mean_loss:.1f} points on average, "
        f"{100 * guard.allowed:.1f} are allowed"
    )
    if state.halted:
        return f"Halted: {seen}; recent ones were too costly to be chance."
    share = state.evidence / guard.run_length
    return f"Watching: {seen}; the evidence for a halt stands at {share:.1%}."
