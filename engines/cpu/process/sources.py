"""What each source's guides took of steps and fill of memory, as far as it counts still.

It is told to the stub, which hands it on to the next engine process: whoever has one replaced does
not begin anew with the other. State per engine; `now` is in monotonic seconds, which all processes
of a machine share.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from engines.cpu.messages import Standing, Standings

_FORGET_SECONDS = 600.0
"""What a source took or filled counts 1/e after so long."""

_TELL_SECONDS = 1.0
"""So often at most it is told."""

_SOURCES = 256


class Sources:
    """The latest sources; nothing is kept of an empty one, which may be many."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Standing] = OrderedDict()
        self._changed = False
        self._tell_at = 0.0

    def of(self, source: str, now: float) -> Standing:
        """How a source stands now."""
        known = self._known.get(source)
        if known is None:
            return Standing(source, at=now)
        left = math.exp((known.at - now) / _FORGET_SECONDS)
        return Standing(
            source, known.taken_ns * left, known.alone_ns * left, known.kept_bytes * left, now
        )

    def add(
        self, source: str, now: float, *, taken: float = 0.0, alone: float = 0.0, kept: float = 0.0
    ) -> None:
        """Charge a source, or take back what it was charged wrongly."""
        if not source:
            return
        known = self.of(source, now)
        self._put(
            known._replace(
                taken_ns=max(0.0, known.taken_ns + taken),
                alone_ns=known.alone_ns + alone,
                kept_bytes=known.kept_bytes + kept,
            )
        )
        self._changed = True

    def told(self, now: float) -> Standings | None:
        """How all stand; None if nothing was added since it was told, or that was just now."""
        if not self._changed or now < self._tell_at:
            return None
        self._changed, self._tell_at = False, now + _TELL_SECONDS
        return Standings(tuple(self._known.values()))

    def inherit(self, standings: Standings) -> None:
        """Go on where another engine process left off."""
        for one in standings.sources:
            self._put(one)

    def _put(self, one: Standing) -> None:
        self._known.pop(one.source, None)
        self._known[one.source] = one
        if len(self._known) > _SOURCES:
            self._known.popitem(last=False)
