"""What the ledger gained since we began to look: requests, tokens, money."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pennyweight.ledger.reader import Tail, Unreadable, spent_micro_usd


@dataclass(frozen=True)
class Totals:
    """Sums over finished requests; money in micro-USD, that of paired evidence included."""

    requests: int = 0
    failed: int = 0
    from_cache: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    baseline_micro_usd: int = 0

    @property
    def saved_micro_usd(self) -> int:
        """What "always the top tier, no cache" would have cost more."""
        return self.baseline_micro_usd - self.micro_usd

    def plus(self, record: Mapping[str, Any]) -> "Totals":
        """The sums with one more record; those of other kinds add no request."""
        spent = self.micro_usd + spent_micro_usd(record)
        if record["kind"] != "request":
            return replace(self, micro_usd=spent)
        return Totals(
            self.requests + 1,
            self.failed + (record.get("status") != "OK"),
            self.from_cache + (record.get("cache") in ("exact", "shared")),
            self.output_tokens + int(record.get("output_tokens") or 0),
            spent,
            self.baseline_micro_usd + int(record.get("baseline_micro_usd") or 0),
        )


class LedgerTail:
    """Adds up what comes. State: how far the ledger is read, and the sums so far."""

    def __init__(self, folder: Path) -> None:
        """Leaves out what is there already."""
        self._tail = Tail(folder)
        self.totals = Totals()

    def read(self) -> Totals:
        """The sums now."""
        for record in self._tail.read():
            self.totals = self.totals.plus(record)
        return self.totals

    @property
    def unreadable(self) -> Unreadable:
        """What of the ledger is in no sum."""
        return self._tail.unreadable
