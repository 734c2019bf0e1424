"""Requests whose guides are new: they wait outside of the line until those are tried.

And those with guides that take much: a few run at once, the others wait here too, sources in turns.
State per engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from engines.cpu.process.admission import QueueFullError, failure
from engines.cpu.process.conduct import Conduct
from engines.cpu.request import INVALID_PREFIX, Generation, Guide, guide_hash

_MOST = 1024
_MOST_OF_ONE = 16
"""Requests that may wait for a verdict on their guide, of all sources and of one."""

_GUIDES_OF_ONE = 4
"""Guides that may wait for a verdict, of one source."""

_DEAR_SHARE = 1 / 10
"""Of what all guides of a step may take: those that take less are not counted."""

TOO_MANY = (
    f"Too many requests wait for their guides, at most {_MOST_OF_ONE} with {_GUIDES_OF_ONE} guides"
    " may: please try again later"
)
TOO_FULL = (
    "Guides of this caller fill the engine's memory: for some minutes no others wait for their"
    " guides to be tried"
)
TRUST_LOST = (
    "Guides of this caller made steps slow: for some minutes no others wait for their guides to be"
    " tried, and none that take much run"
)


class Guides(Protocol):
    """Which guides may run."""

    @property
    def kept_bytes(self) -> int:
        """What compiled ones keep in memory, about."""

    @property
    def compiling(self) -> bool:
        """Whether one is compiled right now, beside the loop."""

    def known(self, guide: Guide) -> bool:
        """Whether there is a verdict; it is not found out."""

    def verdict(self, guide: Guide, source: str) -> str | None:
        """Empty: it may run, at once; a text: why not; None: not yet known, ask again."""

    def token_ns(self, guide: Guide) -> int:
        """What a token of its answers took when it was tried."""

    def filled(self) -> Mapping[str, int]:
        """What those that were compiled since this was asked last keep, by whose they are."""

    def drop(self, guide: Guide) -> None:
        """Nobody waits for it any more."""

    def refuse(self, guide: bytes, why: str) -> None:
        """From now on that is the verdict on the guide of that hash."""


class Unproven:
    """Those that wait; `guides_ns` is how much all guides of a step may take together.

    `line_up` takes one whose guide may run, and says whether it runs or stands in line from now on;
    `refuse` one that may not, with the words for its caller.
    """

    def __init__(
        self,
        guides: Guides,
        conduct: Conduct,
        guides_ns: int,
        *,
        line_up: Callable[[int, Generation], bool],
        refuse: Callable[[int, str], None],
    ) -> None:
        """Nobody waits yet."""
        self._guides = guides
        self._conduct = conduct
        self._guides_ns = guides_ns
        self._line_up = line_up
        self._refuse = refuse
        self._waiting: dict[int, Generation] = {}
        self._dear: dict[int, int] = {}  # what a token takes of those that run or stand in line
        self._short = False  # whether one that takes much waits for room among those
        self._turns: dict[str, int] = {}  # when each source had its last dear one

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: int) -> bool:
        return key in self._waiting

    def add(self, key: int, generation: Generation) -> None:
        """Take a request with a guide, and let it go at once if that is known."""
        if why := self._distrusted(generation):
            self._refuse(key, why)
            return
        self._waiting[key] = generation
        if self._short:
            self.prove()
        else:
            self._short = self._settle(key, generation, room=True)
        if key in self._waiting and (why := self._crowded(generation)):
            self.forget(key)
            self._refuse(key, why)

    def forget(self, key: int) -> None:
        """Take out a request, and its guide if nobody else waits for it."""
        guide = self._waiting.pop(key).guide
        if guide and all(other.guide != guide for other in self._waiting.values()):
            self._guides.drop(guide)

    def prove(self) -> None:
        """Let those go whose guides have a verdict by now.

        Where one that takes much has to wait for room, all others that do wait behind it: those
        that take a little less would never leave it any.
        """
        self._short = False
        for source, kept in self._guides.filled().items():
            self._conduct.kept(source, kept)
        for key, generation in sorted(
            self._waiting.items(), key=lambda item: self._turns.get(item[1].source, 0)
        ):
            self._short |= self._settle(key, generation, room=not self._short)
        if not self._waiting:
            self._turns.clear()

    def turned_out(self, key: int, token_ns: int) -> None:
        """A request that runs takes more than it may for each token."""
        self._dear[key] = token_ns

    def keep_dear(self, *there: Collection[int]) -> None:
        """Those with other keys have ended: there may be room for who waits."""
        count = len(self._dear)
        self._dear = {
            key: cost for key, cost in self._dear.items() if any(key in keys for keys in there)
        }
        if len(self._dear) < count:
            self.prove()

    def _distrusted(self, generation: Generation) -> str:
        """Why a request may have no new guide tried; empty: it may, or needs none."""
        assert generation.guide is not None  # noqa: S101 - else it is none of ours
        if self._guides.known(generation.guide):
            return ""
        if generation.known_only or self._conduct.no_new(generation.source):
            return TRUST_LOST
        return TOO_FULL if self._conduct.fills(generation.source) else ""

    def _crowded(self, last: Generation) -> str:
        """Why the last request may not wait for the verdict on its guide; empty: it may."""
        if len(self._waiting) > _MOST:
            return str(QueueFullError(_MOST))
        theirs = [one.guide for one in self._waiting.values() if one.source == last.source]
        if len(theirs) > _MOST_OF_ONE or len(set(theirs)) > _GUIDES_OF_ONE:
            return TOO_MANY
        return ""

    def _settle(self, key: int, generation: Generation, *, room: bool) -> bool:
        """Let it go if it may; whether it waits for room. `room`: nobody else does before it."""
        assert generation.guide is not None  # noqa: S101 - else it has nothing to wait for
        verdict = self._guides.verdict(generation.guide, generation.source)
        if verdict is None:
            return False
        guide = generation.guide
        cost = 0 if verdict else self._token_ns(guide)
        dear = cost > self._guides_ns * _DEAR_SHARE
        source, digest = generation.source, guide_hash(guide)
        if (dear and self._conduct.no_dear(source, digest)) or (
            not verdict and self._conduct.no_unknown(source, digest)
        ):
            verdict = TRUST_LOST
        elif dear and not (room and self._has_room(cost)):
            return True  # until others have ended
        del self._waiting[key]
        if verdict:
            whole = verdict.startswith(INVALID_PREFIX) or verdict == TRUST_LOST
            self._refuse(key, verdict if whole else failure(key, verdict))
        elif self._line_up(key, generation) and dear:
            self._dear[key] = cost
            self._turns[generation.source] = max(self._turns.values(), default=0) + 1
        return False

    def _has_room(self, cost: int) -> bool:
        """Whether one that takes so much may run beside those that do; alone any may."""
        return not self._dear or sum(self._dear.values()) + cost <= self._guides_ns

    def _token_ns(self, guide: Guide) -> int:
        """What a token takes: as it was tried, or what it turned out to take, if that is more."""
        return max(self._guides.token_ns(guide), self._conduct.token_ns(guide_hash(guide)))
