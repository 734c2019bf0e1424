"""Which guide makes steps slow, told by what each has shown before.

What a guide costs may show only far into an answer, so no trial finds all. Steps are shared, so a
slow one may be due to any guide that it follows: most likely to one that has come further than it
ever did in fast steps, and that was there in each of the slow ones.

State per engine; times are nanoseconds of a step beyond what reading prompts may take of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engines.cpu.process.parts import Parts
from engines.cpu.suspicion import Suspect, Suspicion

_STEPS = 4
"""Over about so many steps goes the mean that says that steps are slow."""

_MOST = 3
"""So many times slow counts a step at most: less than `_STEPS`, so that one alone ends nothing."""

_REMEMBERED = 4096  # guides, by hash


class Following(NamedTuple):
    """An answer that follows a guide in a step.

    `key` is its request's, which grow; `guide` a hash; `length` how far the answer had come;
    `source` whose request it is.
    """

    key: int
    guide: bytes
    length: int
    source: str = ""


class Blame(NamedTuple):
    """The guide whose answers are to end, by hash; `certain`: it may not run again, for anybody."""

    guide: bytes
    certain: bool


class Proven:
    """How far each guide has come in fast steps; the latest guides."""

    def __init__(self) -> None:
        self._lengths = Parts[int](_REMEMBERED)

    def new(self, following: Sequence[Following]) -> frozenset[bytes]:
        """The guides that are further than ever."""
        return frozenset(one.guide for one in following if one.length > self._of(one.guide))

    def length(self, guide: bytes) -> int:
        """How far one has come at least; 0: nowhere yet."""
        return max(self._of(guide), 0)

    def prove(self, following: Sequence[Following]) -> list[Following]:
        """A step was fast; return those that it shows to be further than known."""
        further = []
        for one in following:
            self._lengths.use(one.guide, one.source)
            proven = self._of(one.guide)
            # Nothing is known of what lies between, but the first token may go unnoticed.
            if not proven < one.length <= max(proven, 0) + 1:
                continue
            self._lengths.put(one.guide, one.source, one.length)
            further.append(one)
        return further

    def disprove(self, one: Following) -> None:
        """It went another way when it came so far."""
        if self._of(one.guide) >= one.length:
            self._lengths.put(one.guide, one.source, one.length - 1)

    def _of(self, guide: bytes) -> int:
        length = self._lengths.get(guide)
        return -1 if length is None else length


class Watch:
    """Watches steps; `slow_ns` is what they may take on average."""

    def __init__(self, slow_ns: int) -> None:
        self._slow_ns = slow_ns
        self._mean_ns = 0.0
        self._proven = Proven()
        self.suspicion = Suspicion()
        self._struck: dict[bytes, int] = {}  # how far those were that are suspects
        self._forget_streak()

    def suspects(self, following: Sequence[Following]) -> frozenset[bytes]:
        """The guides most likely to make a step slow: those further than ever, or else all."""
        return self._proven.new(following) or frozenset(one.guide for one in following)

    def took(self, step_ns: int, following: Sequence[Following], now: float) -> list[Blame]:
        """What follows from a step that took so long; `now` is in seconds."""
        most = min(max(0, step_ns), _MOST * self._slow_ns)
        self._mean_ns += (most - self._mean_ns) / _STEPS
        if step_ns <= self._slow_ns // 2:
            found = self._end_streak(now)
            self._prove(following)
            return found
        if step_ns > self._slow_ns:
            self._note(following)
        return [self._blamed(following, now)] if self._mean_ns > self._slow_ns else []

    def rest(self, now: float) -> list[Blame]:
        """What follows from a step that followed no guide."""
        self._mean_ns = 0.0
        return self._end_streak(now)

    def _forget_streak(self) -> None:
        """Of slow steps one after another: who was there in any, and a suspect in all."""
        self._there: frozenset[bytes] = frozenset()
        self._sources: dict[bytes, set[str]] = {}
        self._suspects: frozenset[bytes] = frozenset()
        self._lengths: dict[bytes, int] = {}
        self._accused: frozenset[bytes] = frozenset()
        self._ended: bytes | None = None

    def _note(self, following: Sequence[Following]) -> None:
        suspects = self.suspects(following)
        self._suspects = self._suspects & suspects or suspects
        self._there |= {one.guide for one in following}
        for one in sorted(following, key=lambda one: one[1:]):
            self._sources.setdefault(one.guide, set()).add(one.source)
            self._lengths[one.guide] = one.length
            self._proven.disprove(one)

    def _blamed(self, following: Sequence[Following], now: float) -> Blame:
        self._mean_ns = 0.0
        if self._ended is not None:  # steps are slow without it
            self._clear(self._ended)
        doubted = self._accuse(now)
        certain = len(self._there) == 1
        among = self._there if certain else doubted or self._suspects
        # The latest to come: steps were fast before it did.
        guide = max(one for one in following if one.guide in among).guide
        self._ended = None if certain or doubted else guide
        self._there -= {guide}
        self._suspects -= {guide}
        return Blame(guide, certain=certain)

    def _accuse(self, now: float) -> frozenset[bytes]:
        """Hold a streak against its suspects, once; return those that it seems to be."""
        fresh = self._suspects - self._accused
        self._accused |= fresh
        for guide in fresh:
            self._struck[guide] = max(self._lengths[guide], self._struck.get(guide, 0))
        suspects = (Suspect(source, guide) for guide in fresh for source in self._sources[guide])
        sources = frozenset[str]().union(*self._sources.values())
        doubted = self.suspicion.accuse(frozenset(suspects), sources, now)
        self._struck = {one: at for one, at in self._struck.items() if one in self.suspicion}
        return frozenset(one.guide for one in doubted)

    def _end_streak(self, now: float) -> list[Blame]:
        if not self._lengths:
            return []
        doubted = frozenset[bytes]() if self._accused else self._accuse(now)
        certain = doubted if len(self._there) == 1 else ()
        self._forget_streak()
        return [Blame(guide, certain=True) for guide in certain]

    def _prove(self, following: Sequence[Following]) -> None:
        for one in self._proven.prove(following):
            if one.length >= self._struck.get(one.guide, one.length + 1):
                self._clear(one.guide)

    def _clear(self, guide: bytes) -> None:
        self.suspicion.clear(guide)
        self._struck.pop(guide, None)
