"""Whom to hold what went wrong against, of those that were there: who was there each time.

A caller can bring any form along whenever it makes something go wrong, also one that others use. So
a form is held against those who brought it, nobody else, and only where they alone were there each
time: what one does never keeps out what another asks. It is forgotten after a while.

State of a process; times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

DOUBT_SECONDS = 300.0
"""How long one is kept out, and how long what went wrong is remembered, from the last time on."""

_MOST = 256  # the latest suspects


class Suspect(NamedTuple):
    """A guide, by hash, and whose request it was that followed it."""

    source: str
    guide: bytes


@dataclass
class _Company:
    """Who was there each time that something went wrong."""

    suspects: frozenset[Suspect]
    sources: frozenset[str]
    until: float
    doubted: bool = False


class Suspicion:
    """Suspects of something that went wrong, and in which company."""

    def __init__(self) -> None:
        self._companies: OrderedDict[Suspect, _Company] = OrderedDict()

    def accuse(
        self, suspects: frozenset[Suspect], sources: Iterable[str], now: float
    ) -> frozenset[Suspect]:
        """Note that one of these is to blame; return those that are doubted from now on.

        They were suspects before, in company of which nobody is there now, and nobody else's
        requests were there both times: `sources` are of all that were, suspects or not.
        """
        there = frozenset(sources).union(one.source for one in suspects)
        found = set()
        for one in suspects:
            company = _Company(suspects, there, now + DOUBT_SECONDS)
            before = self._companies.pop(one, None)
            if before is not None and before.until > now:
                company.suspects &= before.suspects
                company.sources &= before.sources
                alone = company.suspects == {one} and company.sources == {one.source}
                company.doubted = before.doubted or alone
            self._companies[one] = company
            if company.doubted:
                found.add(one)
            if len(self._companies) > _MOST:
                self._companies.popitem(last=False)
        return frozenset(found)

    def doubted(self, suspect: Suspect, now: float) -> bool:
        """Whether it is kept out."""
        company = self._companies.get(suspect)
        return company is not None and company.doubted and company.until > now

    def clear(self, guide: bytes) -> None:
        """It is not to blame for what it was a suspect of: one of its company is."""
        cleared = [one for one in self._companies if one.guide == guide]
        for one in cleared:
            del self._companies[one]
        if cleared:
            for company in self._companies.values():
                company.suspects = company.suspects.difference(cleared)

    def __contains__(self, guide: bytes) -> bool:
        return any(one.guide == guide for one in self._companies)

    def __len__(self) -> int:
        return len(self._companies)
