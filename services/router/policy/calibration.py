"""Thresholds of a route's ladder, and the certificate that they keep its quality.

A request walks up the ladder, cheapest tier first. A lower tier is skipped when the predicted gain
of the top tier is above `skip_above_gain`; one that runs answers when it is certain enough and its
answer has the wanted form, else the next tier gets its turn; the top tier always answers.

Loss is paired: quality of the top tier minus quality of the answer given, in [-1, 1] and not
monotone in any threshold. So the proof is Learn-then-Test (Angelopoulos et al., 2021): candidates
are chosen and ordered, safe to aggressive, on one part of the evidence; on another, untouched part
each is tested in turn, at the full level delta, against "its mean loss is at least epsilon", until
the first that cannot be refuted (fixed-sequence testing). With probability at least 1 - delta no
candidate with a mean loss of epsilon or more is certified.

Here is what a route's calibration consists of, and how it decides. `services.router.calibrate`
makes one, offline.
"""

import math
from dataclasses import dataclass

from services.router.policy.certainty import Certainty, Measure, score
from services.router.policy.difficulty import (
    DifficultyModel,
    SparseFeatures,
    assurance,
    with_certainty,
)


@dataclass(frozen=True, slots=True)
class Rung:
    """When one lower tier is used.

    Attributes:
        skip_above_gain: the tier is skipped when the predicted gain of the top tier is above it;
            in [-1, 1], where 1 never skips and needs no prediction, and -1 always skips.
        accept_at_certainty: its answer stands at this certainty or above, a log-prob, at most 0;
            None asks for none, so that also an answer of unknown certainty stands.
    """

    skip_above_gain: float
    accept_at_certainty: float | None

    def __post_init__(self) -> None:
        skip, accept = self.skip_above_gain, self.accept_at_certainty
        if not -1.0 <= skip <= 1.0:
            raise ValueError(f"skip_above_gain must be in [-1, 1], got {skip}")
        if accept is not None and not (math.isfinite(accept) and accept <= 0.0):
            raise ValueError(f"accept_at_certainty must be a finite log-prob <= 0, got {accept}")

    def enters(self, gain: float | None) -> bool:
        """Whether the tier gets its turn; with the gain unknown only where it is not asked for."""
        if self.skip_above_gain in (-1.0, 1.0):
            return self.skip_above_gain == 1.0
        return gain is not None and gain <= self.skip_above_gain

    def accepts(self, certainty: float | None, *, valid: bool = True) -> bool:
        """Whether its answer stands; unknown certainty is never certain."""
        if not valid:
            return False
        if self.accept_at_certainty is None:
            return True
        return certainty is not None and certainty >= self.accept_at_certainty


SKIPPED = Rung(skip_above_gain=-1.0, accept_at_certainty=None)
"""The tier is never used."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One rung for each lower tier, cheapest first, and the number their certainty is read by."""

    rungs: tuple[Rung, ...]
    measure: Measure = Measure.MEAN

    @staticmethod
    def safe(tiers: int, measure: Measure = Measure.MEAN) -> "Thresholds":
        """Every request goes to the top tier: what holds until something better is certified."""
        return Thresholds((SKIPPED,) * (tiers - 1), measure)


@dataclass(frozen=True)
class TierModels:
    """What was learned about one lower tier.

    Attributes:
        before: predicts the gain of the top tier before this one runs; None where only certainty
            decides.
        after: predicts it once this one has answered, for `Measure.LEARNED`; None elsewhere.
    """

    before: DifficultyModel | None = None
    after: DifficultyModel | None = None


@dataclass(frozen=True)
class Judgement:
    """Decides, for a request of a calibrated route, which tier gets its turn and when it stands.

    Rungs are counted from 0, the cheapest tier's.

    Attributes:
        thresholds: those in force.
        models: one for each lower tier, cheapest first.
        first_k: tokens that `Certainty.first_k` was calibrated with.
    """

    thresholds: Thresholds
    models: tuple[TierModels, ...]
    first_k: int

    def __post_init__(self) -> None:
        if len(self.models) != len(self.thresholds.rungs):
            raise ValueError(
                f"{len(self.thresholds.rungs)} rungs need as many models, got {len(self.models)}"
            )
        if self.first_k < 1:
            raise ValueError(f"first_k must be at least 1, got {self.first_k}")
        for at, (rung, models) in enumerate(zip(self.thresholds.rungs, self.models, strict=True)):
            if models.before is None and abs(rung.skip_above_gain) != 1.0:
                raise ValueError(f"rung {at} compares a gain that no model predicts")
            learned = self.thresholds.measure is Measure.LEARNED
            if learned and models.after is None and rung.accept_at_certainty is not None:
                raise ValueError(f"rung {at} compares a certainty that no model predicts")

    @staticmethod
    def safe(tiers: int) -> "Judgement":
        """Every request goes to the top tier."""
        return Judgement(Thresholds.safe(tiers), (TierModels(),) * (tiers - 1), 1)

    @property
    def predicts(self) -> bool:
        """Whether any of its models looks at a request's features."""
        return any(tier.before is not None or tier.after is not None for tier in self.models)

    def gain(self, rung: int, features: SparseFeatures) -> float | None:
        """Predicted gain of the top tier over this one, in [-1, 1]; None without a model."""
        model = self.models[rung].before
        return None if model is None else model.gain(features)

    def certainty(
        self, rung: int, features: SparseFeatures, certainty: Certainty | None
    ) -> float | None:
        """Certainty of this tier's answer in the thresholds' measure; None where unknown."""
        if certainty is None:
            return None
        model = self.models[rung].after
        if self.thresholds.measure is not Measure.LEARNED:
            return score(certainty, self.thresholds.measure)
        return None if model is None else assurance(model.gain(with_certainty(features, certainty)))


@dataclass(frozen=True, slots=True)
class Pair:
    """One request that every tier of the ladder answered, cheapest first.

    Attributes:
        gains: predicted gain of the top tier over each lower one; None where unknown.
        certainties: certainty of each lower tier's answer; None where unknown.
        qualities: of each tier's answer, in [0, 1].
        costs: of each tier's answer, in one unit throughout; at least 0.
        valid: whether each lower tier's answer had the wanted form.
        propensity: probability with which this request was drawn as evidence, in (0, 1].
        asked: how often its question counts where each counts as often as it was asked; positive.
        draws: independent draws of traffic that this is: 1, as copies of a question are one, but
            each request for one of the standing questions.
        once: whether it counts where each question counts once.
    """

    gains: tuple[float | None, ...]
    certainties: tuple[float | None, ...]
    qualities: tuple[float, ...]
    costs: tuple[float, ...]
    valid: tuple[bool, ...] = ()
    propensity: float = 1.0
    asked: float = 1.0
    draws: int = 1
    once: bool = True

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_numbers()

    def _check_sizes(self) -> None:
        lower = len(self.qualities) - 1
        if lower < 1:
            raise ValueError("a pair needs at least two tiers")
        sizes = {len(self.gains), len(self.certainties), len(self.valid or self.gains)}
        if sizes != {lower} or len(self.costs) != lower + 1:
            raise ValueError(f"a pair of {lower + 1} tiers needs {lower} gains and certainties")

    def _check_numbers(self) -> None:
        if not all(0.0 <= quality <= 1.0 for quality in self.qualities):
            raise ValueError(f"qualities must be in [0, 1], got {self.qualities}")
        if not all(0.0 <= cost < math.inf for cost in self.costs):
            raise ValueError(f"costs must be finite and at least 0, got {self.costs}")
        if not 0.0 < self.propensity <= 1.0:
            raise ValueError(f"propensity must be in (0, 1], got {self.propensity}")
        if not 0.0 < self.asked < math.inf or self.draws < 1:
            raise ValueError(f"asked and draws must be positive, got {self.asked}, {self.draws}")
        if not all(gain is None or -1.0 <= gain <= 1.0 for gain in self.gains):
            raise ValueError(f"gains must be in [-1, 1], got {self.gains}")
        if not all(sure is None or -math.inf < sure <= 0.0 for sure in self.certainties):
            raise ValueError(f"certainties must be finite log-probs, got {self.certainties}")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was certified, on what, and under which assumptions.

    Attributes:
        thresholds: those in force.
        certified: False means that nothing cheaper could be certified: the safe default.
        epsilon: most quality that may be lost on average, in [0, 1].
        delta: probability that a certificate like this is wrong, at most, all looks at the
            evidence together.
        bound: upper confidence limit, at 1 - level, of the mean loss of these thresholds taken
            alone; at most epsilon when certified.
        loss: mean loss measured on the certify part, each question as often as it was asked.
        n_fit: distinct questions that candidates were chosen on.
        n_certify: distinct questions that they were tested on.
        escalation_rate: expected share of requests that the top tier answers.
        tier_shares: expected share of requests that each tier answers, cheapest first.
        saving: expected share of the top tier's cost that is saved, shadow cost included.
        shadow_share: sampling share whose cost is included.
        method: name of the test.
        assumptions: what must be true for the bound, in words.
        pairs_missing: 0 when certified, else an estimate of how many pairs are missing, or None
            when no number of pairs would do, as no cheaper thresholds keep to epsilon.
        look: number of this look at the evidence, from 1.
        level: share of delta that this look was given; None in certificates of before, which
            counted no looks and took all of it.
    """

    thresholds: Thresholds
    certified: bool
    epsilon: float
    delta: float
    bound: float
    loss: float
    n_fit: int
    n_certify: int
    escalation_rate: float
    tier_shares: tuple[float, ...]
    saving: float
    shadow_share: float
    method: str
    assumptions: str
    pairs_missing: int | None = 0
    look: int = 1
    level: float | None = None
