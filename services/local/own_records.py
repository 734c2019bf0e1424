"""What the ledger says of requests that we made ourselves, once it has all of them.

A request's record comes when nothing runs for it any more, evidence included: what its caller was
told is not all that it cost.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pennyweight.ledger.money import Money, money_of
from pennyweight.ledger.tail import Tail

LOOK_SECONDS = 0.2

LEDGER_SECONDS = 3.0
"""So long after the last answer some record is in the ledger, if it is the right one."""

EVIDENCE_SECONDS = 90.0
"""So long after that nearly all evidence is gathered; a route's `evidence.seconds` bounds it."""


@dataclass(frozen=True, slots=True)
class OwnRecord:
    """What became of one request.

    Attributes:
        tier: that answered; empty where none did.
        reason: of the decision.
        answered: well.
    """

    tier: str
    reason: str
    answered: bool
    money: Money


class OwnRecords:
    """Follows a ledger. State: how far it is read, and every record since by its handle."""

    def __init__(self, folder: Path) -> None:
        """Leaves out what is there already."""
        self._tail = Tail(folder)
        self._found: dict[str, OwnRecord] = {}

    def read(self) -> None:
        """Takes what has come."""
        for record in self._tail.read():
            if record["kind"] == "request":
                self._found[str(record.get("handle"))] = OwnRecord(
                    tier=str(record.get("tier") or ""),
                    reason=str(record.get("reason") or ""),
                    answered=record.get("status") == "OK",
                    money=money_of(record),
                )

    async def settled(self, handles: Collection[str]) -> list[OwnRecord] | None:
        """The records of all requests with these handles; None if they do not come in time.

        Those of which evidence is gathered come last. A ledger without any of them is another's.
        """
        began = time.monotonic()
        while True:
            await asyncio.to_thread(self.read)
            found = self.of(handles)
            if len(found) == len(handles):
                return found
            if time.monotonic() - began >= (EVIDENCE_SECONDS if found else LEDGER_SECONDS):
                return None
            await asyncio.sleep(LOOK_SECONDS)

    def of(self, handles: Collection[str]) -> list[OwnRecord]:
        """Those of the requests with these handles that have come."""
        return [self._found[handle] for handle in handles if handle in self._found]
