"""What requests cost and what they saved, the same wherever it is shown.

Saved is what the top tier without a cache would have cost more than everything that was charged,
evidence included: whoever gathers it pays for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Money:
    """Money of some requests, in micro-USD.

    Attributes:
        paid: for them, what ran for evidence apart.
        shadow: for what ran for evidence alone.
        baseline: what the top tier without a cache would have cost.
    """

    paid: int = 0
    shadow: int = 0
    baseline: int = 0

    @property
    def spent(self) -> int:
        """All that was charged."""
        return self.paid + self.shadow

    @property
    def saved(self) -> int:
        """What the top tier without a cache would have cost more."""
        return self.baseline - self.spent

    def plus(self, other: "Money") -> "Money":
        """Both together."""
        return Money(
            self.paid + other.paid, self.shadow + other.shadow, self.baseline + other.baseline
        )


NOTHING = Money()


def total_of(parts: Iterable[Money]) -> Money:
    """All of them together."""
    whole = NOTHING
    for part in parts:
        whole = whole.plus(part)
    return whole


def money_of(record: Mapping[str, Any]) -> Money:
    """What a record adds to the money; evidence is in requests since schema 2, before in pairs."""
    if record["kind"] == "request":
        attempts = record.get("attempts") or ()
        shadow = sum(int(one["micro_usd"]) for one in attempts if one.get("cause") == "evidence")
        charged = int(record.get("micro_usd") or 0)
        return Money(charged - shadow, shadow, int(record.get("baseline_micro_usd") or 0))
    return Money(shadow=0 if "schema" in record else int(record.get("shadow_micro_usd") or 0))
