"""Records what tiers are asked for, a line a minute, so that policies can be tried on it.

A minute in which no router was heard gets no line: to know nothing is not to say that nothing came.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.common.buckets import longer_than
from services.common.durations import wall_clock
from services.common.load_totals import LoadTotals
from services.scaler.history.journal import GAP, Journal, Limits, read
from services.scaler.load.loads import Loads
from services.scaler.policy.recorded import MINUTE_SECONDS, RecordedMinute

DAYS = 14
DAY_SECONDS = 86_400
LIMITS = Limits(file_bytes=1 << 20, files=256, seconds=(DAYS + 1) * DAY_SECONDS)
"""14 days of 60 tiers take 256 MB; of 2 tiers 6 MB."""

LEAST_SECONDS = 5.0
"""Less of a minute says nothing."""

_FIGURES = ("arrivals", "prompt_tokens", "finished", "output_tokens", "first_texts", "late")


class Recorder:
    """Writes the load of each minute. `run` in a task of its own."""

    def __init__(
        self,
        loads: Loads,
        journal: Journal,
        objective: Callable[[str], float],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """`objective` gives the seconds to the first text that a tier is held to."""
        self._loads = loads
        self._journal = journal
        self._objective = objective
        self._clock = clock
        self._wall = wall
        self._before: Mapping[str, LoadTotals] | None = None  # None: nobody was heard
        self._since = 0.0

    async def run(self) -> None:
        """Records at the end of each minute. Runs for ever."""
        while True:
            self.begin()
            await asyncio.sleep(MINUTE_SECONDS - self._wall() % MINUTE_SECONDS)
            self.record()

    def begin(self) -> None:
        """What is counted from now on belongs to a minute that is written by `record`."""
        now = self._clock()
        self._before = self._loads.counted() if self._loads.counting(now) else None
        self._since = now

    def record(self) -> None:
        """Writes what was counted since `begin`, which was in the minute that ends now."""
        now = self._clock()
        seconds = min(now - self._since, float(MINUTE_SECONDS))
        if self._before is None or not self._loads.counting(now) or seconds < LEAST_SECONDS:
            return
        # Half a minute back lies in the minute that ends, whether its end came early or late.
        minute = int((self._wall() - MINUTE_SECONDS / 2) // MINUTE_SECONDS)
        for tier, counted in self._loads.counted().items():
            growth = counted + -self._before.get(tier, LoadTotals())
            self._journal.add(
                {
                    "tier": tier,
                    "minute": minute,
                    "seconds": round(seconds, 3),
                    "arrivals": growth.arrivals,
                    "prompt_tokens": growth.prompt_tokens,
                    "finished": growth.finished,
                    "output_tokens": growth.output_tokens,
                    "first_texts": sum(growth.first_text),
                    "late": round(longer_than(growth.first_text, self._objective(tier))),
                }
            )


def recorded(
    folder: Path, since_minute: int, until_minute: int | None = None
) -> list[RecordedMinute]:
    """The minutes on record in a journal's folder, from one to another, oldest first. Reads files.

    What cannot be read is left out: a minute without a line is one that nobody knows. So are those
    of a clock that was wrong for a while, which lie outside and among the others.

    Args:
        folder: of the journal.
        since_minute: the first one.
        until_minute: the last one; None: whichever there is.

    Raises:
        OSError: the record cannot be read.
    """
    found: dict[tuple[str, int], RecordedMinute] = {}
    for line in read(folder):
        one = None if line is None or GAP in line else _minute(line)
        if one is None or one.minute < since_minute:
            continue
        if until_minute is not None and one.minute > until_minute:
            continue
        found.setdefault((one.tier, one.minute), one)
    return sorted(found.values(), key=lambda one: (one.minute, one.tier))


def _minute(line: Mapping[str, Any]) -> RecordedMinute | None:
    try:
        figures = [int(line[name]) for name in _FIGURES]
        seconds = float(line["seconds"])
        if min(figures) < 0 or not 0 < seconds <= MINUTE_SECONDS:
            return None
        return RecordedMinute(str(line["tier"]), int(line["minute"]), seconds, *figures)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
