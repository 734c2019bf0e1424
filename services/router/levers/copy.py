"""A router's copy of the shared records of levers, and how it changes the shared ones.

Records go by name here; which routes have them is for `board` to know. What the copy knows and the
shared state has lost, such as a halt that could not be written, is owed to it and written again.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

import orjson
import structlog

from services.common.errors import Unavailable
from services.router.policy.lever_record import DAMAGED, LeverRecord
from services.router.policy.lever_values import lever_record_of, values_of
from services.router.state.store import SharedState

log = structlog.get_logger()

UNKNOWN_SECONDS = 2.0
"""After so long without an answer of the shared state nobody knows what it says."""

READ_EVERY = 20
"""One look in so many reads everything, whether or not anything seems to have changed."""

TRIES = 16

REFUSED = "STATE_REFUSED"
"""Reason of a shared state that is there and does not do what it is asked, and says why."""

NEW = LeverRecord()

Change = Callable[[LeverRecord], LeverRecord]


@dataclass(frozen=True, slots=True)
class _Known:
    """A record as the shared state has it, as far as we know, and as it should be."""

    stored: bytes | None = None
    record: LeverRecord = field(default=NEW)
    owed: bool = False


class LeverCopy:
    """State of the process; the truth is in the shared state.

    Attributes:
        away: the shared state did not answer, or refused, when it was last asked.
        refusal: why it refused when it was last looked at; empty where it did not.
        version: another number whenever a record here has changed.
    """

    def __init__(self, state: SharedState, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only grow."""
        self._state = state
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._changes = ""
        self._looks = 0
        self._heard = -inf
        self.away = True
        self.refusal = ""
        self.version = 0

    @property
    def unknown(self) -> bool:
        """Whether the shared state has been silent for so long that nobody knows."""
        return self._clock() - self._heard > UNKNOWN_SECONDS

    def record(self, name: str) -> LeverRecord:
        """What is known of a lever."""
        return self._known.get(name, _NOTHING).record

    def owed(self, name: str) -> bool:
        """Whether the shared state lacks what is known here."""
        return self._known.get(name, _NOTHING).owed

    async def look(self) -> None:
        """Takes what has changed in the shared state, if it answers. Never raises."""
        asked = self._clock()
        try:
            changes = await self._state.changes()
            if changes != self._changes or self._looks % READ_EVERY == 0:
                changes, records = await self._state.records()
                for name in {*records, *self._known}:
                    self._learn(name, records.get(name))
                self._changes = changes
                if self._heard == -inf:
                    log.info("levers are known", records=len(records))
        except Unavailable as error:
            self.away = True
            self.refusal = error.message if error.reason == REFUSED else ""
        else:
            self._heard, self.away, self.refusal = asked, False, ""
            self._looks += 1

    async def change(self, name: str, change: Change) -> tuple[LeverRecord, LeverRecord]:
        """Changes the shared record, and pays what is owed to it.

        Args:
            name: the record's.
            change: pure; called again where another router was quicker. Where it returns the
                record that it was given, there is nothing to change.

        Returns:
            the record before and after.

        Raises:
            Unavailable: the shared state cannot be reached, or others were quicker all the time.
        """
        for _ in range(TRIES):
            known = self._known.get(name, _NOTHING)
            after = change(known.record)
            if after is known.record and not known.owed:
                return after, after
            try:
                done, now = await self._state.swap(name, known.stored, _dumped(after))
            except Unavailable:
                self.away = True
                raise
            self._learn(name, now or None)
            if done:
                return known.record, after
        raise Unavailable("others change this lever all the time", reason="LEVER_CONTENDED")

    async def change_at_once(self, name: str, change: Change) -> tuple[LeverRecord, LeverRecord]:
        """Changes a record here before anything else, and then the shared one, if that can be had.

        Where it cannot, the record is owed; see `owed`. Never raises.
        """
        before = self.record(name)
        ours = change(before)
        self.keep(name, ours)

        def still(record: LeverRecord) -> LeverRecord:
            return record if record.setting == ours.setting else change(record)

        with suppress(Unavailable):
            await self.change(name, still)
        return before, self.record(name)

    def keep(self, name: str, record: LeverRecord) -> None:
        """Takes a record that is not in the shared state; it is owed to it from now on."""
        stored = self._known.get(name, _NOTHING).stored
        self._known[name] = _Known(stored, record, owed=True)
        self.version += 1

    def _learn(self, name: str, stored: bytes | None) -> None:
        """Takes a record as the shared state has it."""
        known = self._known.get(name, _NOTHING)
        theirs = NEW
        if stored is not None:
            try:
                theirs = parse_record(stored)
            except ValueError as error:
                theirs = DAMAGED
                if stored != known.stored:
                    log.warning("the record of a lever is damaged", lever=name, error=str(error))
        record = known.record.joined(theirs)
        self._known[name] = _Known(stored, record, owed=record != theirs and not record.damaged)
        if record != known.record:
            self.version += 1


_NOTHING = _Known()


def parse_record(stored: bytes) -> LeverRecord:
    """A record as the shared state has it.

    Raises:
        ValueError: it is damaged.
    """
    return lever_record_of(orjson.loads(stored))


def _dumped(record: LeverRecord) -> bytes:
    return orjson.dumps(values_of(record))
