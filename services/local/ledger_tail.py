"""What the ledger gained since we began to look: requests, tokens, money."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pennyweight.ledger.lines import Unreadable
from pennyweight.ledger.money import NOTHING, Money, money_of
from pennyweight.ledger.tail import Tail


@dataclass(frozen=True)
class Totals:
    """Sums over finished requests; their money with that of paired evidence."""

    requests: int = 0
    failed: int = 0
    from_cache: int = 0
    output_tokens: int = 0
    money: Money = NOTHING

    def plus(self, record: Mapping[str, Any]) -> "Totals":
        """The sums with one more record; those of other kinds add no request."""
        money = self.money.plus(money_of(record))
        if record["kind"] != "request":
            return replace(self, money=money)
        return Totals(
            self.requests + 1,
            self.failed + (record.get("status") != "OK"),
            self.from_cache + (record.get("cache") in ("exact", "shared")),
            self.output_tokens + int(record.get("output_tokens") or 0),
            money,
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
