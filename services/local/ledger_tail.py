"""What the ledger gained since we began to look: requests, tokens, money."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


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

    def plus(self, record: dict[str, Any]) -> "Totals":
        """The sums with one more record; paired evidence adds what it cost, and no request."""
        if record.get("kind", "request") != "request":
            shadow = int(record.get("shadow_micro_usd") or 0)
            return replace(self, micro_usd=self.micro_usd + shadow)
        return Totals(
            self.requests + 1,
            self.failed + (record.get("status") != "OK"),
            self.from_cache + (record.get("cache") in ("exact", "shared")),
            self.output_tokens + int(record.get("output_tokens") or 0),
            self.micro_usd + int(record.get("micro_usd") or 0),
            self.baseline_micro_usd + int(record.get("baseline_micro_usd") or 0),
        )


@dataclass
class LedgerTail:
    """Reads on in each file from where it was; a line still being written waits for the next time.

    State: how far each file is read, and the sums so far.
    """

    folder: Path
    totals: Totals = Totals()
    _read: dict[Path, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Leaves out what is there already."""
        self._read = {path: path.stat().st_size for path in self.folder.glob("*.jsonl")}

    def read(self) -> Totals:
        """The sums now."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = start + len(whole) + len(newline)
            for line in whole.splitlines():
                self.totals = self.totals.plus(json.loads(line))
        return self.totals
