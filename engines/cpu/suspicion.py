"""Whom to hold what went wrong against, of those that were there: who was there each time.

State of a process, no time.
"""

from __future__ import annotations

from collections import OrderedDict

_MOST = 256  # the latest suspects


class Suspicion:
    """Guides, by hash, that were there when something went wrong, and in which company."""

    def __init__(self) -> None:
        self._companies: OrderedDict[bytes, frozenset[bytes]] = OrderedDict()

    def accuse(self, suspects: frozenset[bytes]) -> frozenset[bytes]:
        """Note that one of these is to blame; return those that it must be.

        It must be one that was a suspect before, in company of which nobody is there now.
        """
        guilty = set()
        for one in suspects:
            before = self._companies.pop(one, None)
            company = suspects if before is None else before & suspects
            if before is not None and company == {one}:
                guilty.add(one)
                continue
            self._companies[one] = company
            if len(self._companies) > _MOST:
                self._companies.popitem(last=False)
        return frozenset(guilty)

    def clear(self, guide: bytes) -> None:
        """It is not to blame for what it was a suspect of: one of its company is."""
        if self._companies.pop(guide, None) is None:
            return
        for other, company in self._companies.items():
            if len(company) > 1 and guide in company:
                self._companies[other] = company - {guide}

    def __contains__(self, guide: bytes) -> bool:
        return guide in self._companies

    def __len__(self) -> int:
        return len(self._companies)
