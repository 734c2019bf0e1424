"""What the command line asks of a calibration, in the policy's words; the route says the rest."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.router.calibrate.evidence import BadEvidence
from services.router.calibrate.process import Settings
from services.router.calibrate.wanted import DIGITS, Wanted
from services.router.policy.certainty import Measure

LEDGER = Path("state/ledger")
MIN_TIERS = 2


class BadOption(ValueError):
    """An option that cannot be; the message names it, its rule and its value."""


class Cost(StrEnum):
    """What is saved."""

    MICRO_USD = "micro_usd"
    ENGINE_MS = "engine_ms"


@dataclass(frozen=True)
class Options:
    """What was asked; None where the routes file decides.

    Attributes:
        route: to calibrate.
        ledger: folder of its evidence; None, and no `labelled` either, for the tree's own.
        labelled: file of its evidence.
        tolerance: most quality that may be lost on average.
        confidence: least probability that the certificate is right.
        evidence_share: share of requests sampled as evidence, whose cost counts.
        first_tokens: how many the measure `first_k` looks at.
        ladder: tiers, cheapest first, separated by commas.
        measures: of certainty that may be used; none given, those that the route can use.
        cost: that is to be saved.
        certify_share: share of the questions that is kept for the test.
        lowest_propensity: with which any request was drawn as evidence.
        since: older pairs are left out.
        names: what tiers are called in a labelled file, as `small=cheap,large=dear`.
    """

    route: str
    ledger: Path | None
    labelled: Path | None
    tolerance: float | None
    confidence: float | None
    evidence_share: float | None
    first_tokens: int | None
    ladder: str | None
    measures: Sequence[Measure]
    cost: Cost
    certify_share: float
    lowest_propensity: float | None = None
    since: dt.datetime | None = None
    names: str | None = None

    def __post_init__(self) -> None:
        if self.ledger is not None and self.labelled is not None:
            raise BadOption("--ledger and --labelled: give one of them, not both")
        if self.names is not None and self.labelled is None:
            raise BadOption("--tiers: is for a labelled file, and none is given")

    @property
    def source(self) -> Path:
        """Where the evidence is."""
        return self.labelled or self.ledger or LEDGER

    def settings(self, asked: Wanted) -> Settings:
        """What a calibration is asked for."""
        confidence = self.confidence
        share, first = self.evidence_share, self.first_tokens
        return Settings(
            epsilon=asked.epsilon if self.tolerance is None else self.tolerance,
            delta=asked.delta if confidence is None else round(1.0 - confidence, DIGITS),
            shadow_share=asked.shadow_share if share is None else share,
            cost=self.cost.value,
            certify_share=self.certify_share,
            first_k=asked.first_k if first is None else first,
            measures=tuple(self.measures) or asked.measures,
            watch=asked.watch,
            lowest_propensity=self.lowest_propensity,
        )

    def one_measure(self, asked: Wanted) -> tuple[Measure, ...]:
        """What certainties of one number each are taken for.

        Raises:
            BadOption: one number is not enough for it.
        """
        measures = tuple(self.measures) or asked.measures
        if measures[0] is Measure.LEARNED:
            raise BadOption(
                "--measure: learned needs mean, minimum and first_k of each answer, and the file "
                "has one number"
            )
        return measures[:1]

    def tiers(self, asked: Wanted) -> list[str]:
        """Names of the ladder's tiers, cheapest first.

        Raises:
            BadOption: the route does not serve them.
            BadEvidence: it has no tiers to choose from.
        """
        served = [model.tier for model in asked.ladder]
        if not asked.known:
            return [name for name in (self.ladder or "").split(",") if name]  # none: the file's
        if self.ladder is None:
            if len(served) < MIN_TIERS:
                raise BadEvidence(f"--route: {self.route} has no tiers to choose from")
            return served
        named = [name for name in self.ladder.split(",") if name]
        if not set(named) <= set(served) or len(set(named)) < max(MIN_TIERS, len(named)):
            raise BadOption(
                f"--ladder: must be at least two of {', '.join(served)}, got {self.ladder!r}"
            )
        return named


def tier_names(text: str | None) -> dict[str, str]:
    """What tiers of the route are called in a labelled file.

    Raises:
        BadOption: it names none, or one twice.
    """
    if text is None:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    names = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if len(set(names.values())) < len(pairs) or not all([*names, *names.values()]):
        raise BadOption(f"--tiers: must be as small=cheap,large=dear, got {text!r}")
    return names


def a_time(option: str, text: str) -> dt.datetime:
    """The value of an option that is a time; UTC where it names no zone.

    Raises:
        BadOption: it is not.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise BadOption(f"{option}: must be as 2026-11-28T15:42:19Z, got {text!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def a_propensity(option: str, value: float) -> float:
    """The value of an option, above 0 and up to 1.

    Raises:
        BadOption: it is not.
    """
    if 0.0 < value <= 1.0:
        return value
    raise BadOption(f"{option}: must be in (0, 1], got {value:g}")


def a_share(option: str, value: float) -> float:
    """The value of an option, between 0 and 1.

    Raises:
        BadOption: it is not.
    """
    if 0.0 < value < 1.0:
        return value
    raise BadOption(f"{option}: must be in (0, 1), got {value:g}")


def a_share_or_all(option: str, value: float) -> float:
    """The value of an option, from 0 to 1.

    Raises:
        BadOption: it is not.
    """
    if 0.0 <= value <= 1.0:
        return value
    raise BadOption(f"{option}: must be in [0, 1], got {value:g}")


def complement(option: str, value: float) -> float:
    """1 minus the value of an option, between 0 and 1.

    Raises:
        BadOption: it is not.
    """
    return round(1.0 - a_share(option, value), DIGITS)


def at_least_one(option: str, value: int) -> int:
    """The value of an option that is a count.

    Raises:
        BadOption: it is less than 1.
    """
    if value >= 1:
        return value
    raise BadOption(f"{option}: must be at least 1, got {value}")
