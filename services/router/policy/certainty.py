"""How sure a model was of its own answer.

Certainty comes from the log-probabilities of the generated tokens, natural logarithm throughout:
0 is sure, more negative is less sure. What an engine did not report, or reported in a way that
cannot be true, is unknown: None, never sure. (Engines exist that fill absent log-probabilities
with zeros.) Token log-probabilities as a cascade's check: Gupta et al., "Language Model Cascades:
Token-level Uncertainty and Beyond" (ICLR 2024), who find that the weakest tokens tell more than
the mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

NEAR_ZERO = 1e-4
"""A log-prob above zero by no more than this is rounding and counts as zero."""


class Measure(StrEnum):
    """Which number a route compares with its threshold; all are log-probs, higher is surer.

    LEARNED is not one of a `Certainty`: a model weighs all of them together with the prompt, see
    `calibration.Judgement`. FIRST_K alone can be had before the answer is complete.
    """

    MEAN = "mean"
    MINIMUM = "minimum"
    FIRST_K = "first_k"
    LEARNED = "learned"


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure a model was; log-probabilities, at most 0.

    Attributes:
        mean: over all tokens.
        minimum: of the least likely token.
        first_k: mean over the first k tokens, those a stream can hold back.
    """

    mean: float
    minimum: float
    first_k: float


def certainty_of(
    log_probs: Sequence[float], first_k: int, *, reported: bool | None = None
) -> Certainty | None:
    """Sums up the log-probs of an answer, or of the tokens that are held back so far.

    Args:
        log_probs: one a token.
        first_k: how many tokens `Certainty.first_k` looks at, at least 1.
        reported: the engine tells log-probs, so that 0 says certain; False, it does not, whatever
            it fills in; None, nobody knows, and nothing but zeros says nothing.

    Returns:
        None where certainty is unknown: no tokens, none reported, or a value that is no
        log-probability (positive, infinite, not a number).
    """
    if first_k < 1:
        raise ValueError(f"first_k must be at least 1, got {first_k}")
    if not log_probs or reported is False:
        return None
    lowest, highest = min(log_probs), max(log_probs)
    total = sum(log_probs)  # not finite if any is not
    if not math.isfinite(total) or highest > NEAR_ZERO or (lowest >= 0.0 and not reported):
        return None
    first = log_probs[:first_k]
    return Certainty(
        mean=min(0.0, total / len(log_probs)),
        minimum=min(0.0, lowest),
        first_k=min(0.0, sum(first) / len(first)),
    )


def score(certainty: Certainty, measure: Measure) -> float:
    """The number that is compared with the threshold: a log-probability, at most 0."""
    if measure is Measure.MEAN:
        return certainty.mean
    if measure is Measure.MINIMUM:
        return certainty.minimum
    if measure is Measure.FIRST_K:
        return certainty.first_k
    raise ValueError(f"{measure} needs a model")
