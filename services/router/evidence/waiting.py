"""A pair that waits for its outcome, the outcome, and what the two say together.

Both are kept in the state that routers share, for 30 days, in which routers of other versions write
and read them too: keys keep their names, and those that nobody here knows are passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from services.router.policy.judging import loss_at_worst, qualities_from_outcome
from services.router.policy.levers import calibration_version, levers_of
from services.router.policy.routes import Route

KEPT_SECONDS = 30 * 86_400.0
"""How long a pair waits, how long after its request an outcome is taken, and how long one is
remembered."""

_OUTCOME: TypeAdapter[tuple[bool | None, float | None, str | None]] = TypeAdapter(
    tuple[bool | None, float | None, str | None], config=ConfigDict(strict=True)
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of one answer; None where nothing was.

    Attributes:
        resolved: whether the answer did what it was asked for.
        rating: from -1 to 1.
        corrected_digest: of the answer it should have been.
    """

    resolved: bool | None
    rating: float | None
    corrected_digest: str | None

    def to_bytes(self) -> bytes:
        """The one spelling of this outcome."""
        return orjson.dumps([self.resolved, self.rating, self.corrected_digest])

    @classmethod
    def from_bytes(cls, written: bytes) -> "Outcome":
        """Reads `to_bytes`.

        Raises:
            ValueError: it is none.
        """
        return cls(*_OUTCOME.validate_json(written))


class WaitingPair(BaseModel):
    """What is needed to judge a pair when its outcome comes in.

    Attributes:
        route: its name.
        calibration: version of the calibration in force, or empty.
        answered: number of the answer that the caller got.
        digests: of the answers, keyed; the last is the safest setting's.
        weight: the guardrail's, of this sample, in (0, 1].
        losses_of: by lever, the two answers that its loss is between: that of the safer setting,
            and the one given.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    route: str
    calibration: str
    answered: int
    digests: tuple[Annotated[str, Field(min_length=1)], ...]
    weight: float = Field(gt=0.0, le=1.0, allow_inf_nan=False)
    losses_of: Mapping[str, tuple[int, int]]

    @model_validator(mode="after")
    def _names_answers(self) -> "WaitingPair":
        named = {self.answered, *(at for pair in self.losses_of.values() for at in pair)}
        if not all(0 <= at < len(self.digests) for at in named):
            raise ValueError("names an answer that there is not")
        return self

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, written: bytes) -> "WaitingPair":
        """Reads `to_bytes`.

        Raises:
            ValueError: it is none, or makes no sense.
        """
        return cls.model_validate_json(written)


def losses(route: Route, pair: WaitingPair, outcome: Outcome) -> dict[str, float]:
    """What an outcome says of the levers of a pair that waited for it, at worst, by lever.

    Nothing where the route has another calibration by now: it says nothing about that one.

    Raises:
        ValueError: the pair is of another route, or the outcome says nothing.
    """
    if pair.route != route.name:
        raise ValueError("a pair of another route")
    if pair.calibration != calibration_version(route):
        return {}
    qualities = qualities_from_outcome(
        pair.answered, pair.digests, outcome.resolved, outcome.rating, outcome.corrected_digest
    )
    if qualities is None:
        raise ValueError("the outcome says nothing")
    levers = levers_of(route)  # the policy may have changed since
    found = {
        lever: loss_at_worst(qualities, safer, given)
        for lever, (safer, given) in pair.losses_of.items()
        if lever in levers
    }
    return {lever: loss for lever, loss in found.items() if loss is not None}
