"""Keeps decisions where size or reason changed, tells watchers, and finds them again.

A reason is the constraint that bound last: figures in it change at every tick, and say nothing new.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from services.common.caller_turns import CallerTurns
from services.common.durations import LATEST
from services.common.errors import Overloaded
from services.scaler.history.journal import GAP, Journal, read
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.watching import Watcher, Watchers

MAX_POOLS = 1024
"""Pools whose newest decision is held; configurations have fewer."""

MOST_REPLICAS = (1 << 31) - 1
MOST_VERSIONS = 1 << 53
"""On record: more are a damaged line, and no message holds them."""

OLDER_IN_A_ROW = 100
"""So many lines older than is wanted end a search; fewer are those of a clock that was wrong."""

SEARCH_SECONDS = 2.0
"""How long the record is searched at once."""

MOST_OF_ONE = 4
"""Searches that one caller may ask for at once: callers take turns, in a thread of their own."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision on record.

    Attributes:
        pool: whose size.
        at: when, in seconds since 1970.
        decision: the size, and why.
        version: number of the scaling file's version in force then; 0: not known.
    """

    pool: str
    at: float
    decision: Decision
    version: int = 0


@dataclass(frozen=True)
class Found:
    """Decisions that were looked for.

    Attributes:
        decisions: newest first.
        missing: within the time looked at, those that could not be kept.
        damaged: lines that cannot be read.
        more: there may be more, further back.
    """

    decisions: tuple[Decided, ...] = ()
    missing: int = 0
    damaged: int = 0
    more: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        pool: of this one; empty: of all.
        since, until: seconds since 1970, both included; None: no bound.
        most: at most so many.
    """

    pool: str = ""
    since: float | None = None
    until: float | None = None
    most: int = 100


@dataclass
class _Search:
    wanted: Wanted
    found: list[Decided] = field(default_factory=list)
    missing: int = 0
    damaged: int = 0
    seen: set[tuple[str, float]] = field(default_factory=set)
    older: int = 0  # lines in a row that are older than is wanted
    over: bool = False  # nothing further back is wanted
    more: bool = False

    def look_at(self, line: Mapping[str, Any] | None) -> None:
        if line is None:
            self.damaged += 1
            return
        try:
            at = _moment(line["at"])
            if self.wanted.since is not None and at < self.wanted.since:
                self.older += 1
                self.over = self.older >= OLDER_IN_A_ROW
                return
            self.older = 0
            if self.wanted.until is not None and at > self.wanted.until:
                return
            if GAP in line:
                self.missing += _whole(line[GAP])
                return
            if self.wanted.pool in ("", line["pool"]):  # before it is made something of
                self._take(decided_of(line))
        except (KeyError, TypeError, ValueError, IndexError):
            self.damaged += 1

    def _take(self, decided: Decided) -> None:
        if (decided.pool, decided.at) in self.seen:
            return
        if len(self.found) >= self.wanted.most:
            self.over = self.more = True
            return
        self.seen.add((decided.pool, decided.at))  # while it is read it may also be written
        self.found.append(decided)


class DecisionLog:
    """The `Decisions` that are kept in a journal."""

    def __init__(
        self,
        journal: Journal,
        *,
        version: Callable[[], int] = lambda: 0,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        """`version` tells the scaling file's in force; `on_drop` hears of watchers too slow."""
        self._journal = journal
        self._version = version
        self._now: dict[str, Decided] = {}
        self._kept: dict[str, tuple[int, Bound | None, str]] = {}
        self._watchers: Watchers[Decided] = Watchers(on_drop)
        # The threads that all else shares start replicas too: none of them searches.
        self._searcher = ThreadPoolExecutor(1, "decisions")
        self._turns = CallerTurns()
        self._searches: Counter[str] = Counter()  # by whose they are

    def take(self, pool: str, decision: Decision, wall: float) -> None:
        """See `Decisions.take`."""
        if pool not in self._now and len(self._now) >= MAX_POOLS:
            return
        # To the millisecond, which survives any spelling of a time, so that it is found by it.
        decided = Decided(pool, round(wall, 3), decision, self._version())
        self._now[pool] = decided
        reason = reason_of(decision)
        if self._kept.get(pool) == reason:
            return
        self._kept[pool] = reason
        self._journal.add(line_of(decided))
        self._watchers.publish(decided)

    def keep_only(self, pools: Mapping[str, object]) -> None:
        """Forgets what holds for pools that are no longer configured; the record stays."""
        for pool in self._now.keys() - pools.keys():
            del self._now[pool]
            self._kept.pop(pool, None)

    def current(self, pool: str = "") -> list[Decided]:
        """What holds now for each pool, by name, with the figures of the last tick."""
        return [self._now[name] for name in sorted(self._now) if pool in ("", name)]

    async def find(self, wanted: Wanted, caller: str = "") -> Found:
        """Looks decisions up, callers in turns.

        Raises:
            Overloaded: this caller looks for too many already.
            OSError: the record cannot be read.
        """
        if self._searches[caller] >= MOST_OF_ONE:
            raise Overloaded(
                f"{MOST_OF_ONE} searches of this caller wait already",
                reason="TOO_MANY_SEARCHES",
                retry_after_seconds=SEARCH_SECONDS,
            )
        self._searches[caller] += 1
        try:
            async with self._turns.turn(caller):
                await self._journal.flush()
                unwritten = self._journal.unwritten()  # what the disk refuses is here alone
                search = self._searcher.submit(self._find, wanted, unwritten)
                return await asyncio.wrap_future(search)  # one that is given up never begins
        finally:
            self._searches[caller] -= 1
            if not self._searches[caller]:
                del self._searches[caller]

    def watch(self, pool: str = "", caller: str = "") -> AbstractContextManager[Watcher[Decided]]:
        """A subscription of a caller: what holds now, then each change of all pools.

        Raises:
            Overloaded: there are too many.
            Unavailable: the scaler is going away.
        """
        return self._watchers.subscribe(*self.current(pool), caller=caller)

    def close(self) -> None:
        """Ends every subscription: the scaler is going away."""
        self._watchers.close()
        self._searcher.shutdown(wait=False, cancel_futures=True)

    def _find(self, wanted: Wanted, unwritten: list[Mapping[str, Any]]) -> Found:
        search = _Search(wanted)
        until = time.monotonic() + SEARCH_SECONDS
        for line in _both(unwritten, read(self._journal.folder)):
            search.look_at(line)
            if time.monotonic() > until:
                search.over = search.more = True
            if search.over:
                break
        return Found(tuple(search.found), search.missing, search.damaged, search.more)


def reason_of(decision: Decision) -> tuple[int, Bound | None, str]:
    """What must change for a decision to be kept: the size, or what bound it last."""
    last = decision.constraints[-1] if decision.constraints else None
    return (decision.size, last.bound, last.detail) if last else (decision.size, None, "")


def line_of(decided: Decided) -> dict[str, Any]:
    """A decision as it stands in the journal."""
    decision = decided.decision
    return {
        "at": decided.at,
        "pool": decided.pool,
        "size": decision.size,
        "before": decision.before,
        "constraints": [
            [str(one.bound), one.size, one.detail, one.value, one.limit]
            for one in decision.constraints
        ],
        "usd_per_hour": decision.usd_per_hour,
        "usd_per_hour_before": decision.usd_per_hour_before,
        "demand": decision.demand,
        "why": decision.why,
        "why_not_fewer": decision.why_not_fewer,
        "why_not_more": decision.why_not_more,
        "version": decided.version,
    }


def decided_of(line: Mapping[str, Any]) -> Decided:
    """A decision from a line of the journal; kinds of constraints it does not know are left out.

    Raises:
        KeyError, TypeError, ValueError, IndexError: it is no such line, or holds figures that no
            message does.
    """
    bounds = set(Bound)
    decision = Decision(
        size=_whole(line["size"]),
        before=_whole(line["before"]),
        constraints=tuple(
            Constraint(Bound(bound), _whole(size), str(detail), _figure(value), _figure(limit))
            for bound, size, detail, value, limit in line["constraints"]
            if bound in bounds
        ),
        usd_per_hour=float(line["usd_per_hour"] or 0),
        usd_per_hour_before=float(line["usd_per_hour_before"] or 0),
        demand=_figure(line["demand"]),
        why=str(line["why"]),
        why_not_fewer=str(line["why_not_fewer"]),
        why_not_more=str(line["why_not_more"]),
    )
    return Decided(
        str(line["pool"]), _moment(line["at"]), decision, _whole(line["version"], MOST_VERSIONS)
    )


def _whole(said: Any, most: int = MOST_REPLICAS) -> int:
    number = float(said)  # which has no digits without end, as whole numbers have
    if not 0 <= number <= most:
        raise ValueError(f"must be 0 to {most}")
    return int(number)


def _moment(said: Any) -> float:
    moment = float(said)
    if not 0.0 <= moment <= LATEST:
        raise ValueError(f"must be 0 to {LATEST:.0f}")
    return moment


def _figure(said: Any) -> float | None:
    return None if said is None else float(said)


def _both(
    first: list[Mapping[str, Any]], then: Iterator[Mapping[str, Any] | None]
) -> Iterator[Mapping[str, Any] | None]:
    yield from first
    yield from then
