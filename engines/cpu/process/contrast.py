"""Which of several sources makes steps dear, told by what steps take without some of them.

A step says only what all who are there take together. So it is split evenly between them until one
of them has been away: what it took less, or not, just then is what tells most. What is told once
holds until steps say otherwise, and what a source takes with nobody beside it is measured.

What was split says nothing of who it was: only what steps took whole goes into the estimates, or
whoever is held for dear first would be from then on.

State per engine; times are nanoseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

_LEAST = 1 / 16
"""Of what guides may take is each source held for taking at least: nobody is beyond doubt."""

_STEPS = 16
"""Over about so many steps goes what a source is held for."""

_AWAY = 4
"""For so many steps after a dear one do those without one of its sources tell most of all."""

_APART = 4
"""A source that takes so many times what all others do is told apart from them."""

_TOLD = 3 / 4
"""So much of what a source is held for does such a step settle: it may be an odd one."""

_SOURCES = 256


class Contrast:
    """What each source is held for taking of a step; `share_ns` is what all may take together."""

    def __init__(self, share_ns: int) -> None:
        self._share_ns = share_ns
        self._held: OrderedDict[str, float] = OrderedDict()  # the latest sources
        self._dear: dict[str, float] = {}  # the latest dear step of several: what of it was whose
        self._since = 0  # how many steps ago that was

    def split(self, step_ns: float, guesses: Mapping[str, float]) -> dict[str, float]:
        """What of a step is due to each source; `guesses` split what nothing is known of."""
        held = {source: self._of(source) for source in guesses}
        known, guessed = sum(held.values()), sum(guesses.values())
        if known >= step_ns:
            return {source: step_ns * ns / known for source, ns in held.items()}
        rest = (step_ns - known) / guessed
        return {source: ns + rest * guesses[source] for source, ns in held.items()}

    def learn(self, step_ns: float, sources: Collection[str]) -> None:
        """A step took so long beside which answers of these sources were."""
        self._since += 1
        dear = step_ns > self._share_ns
        told = self._since <= _AWAY and self._dear.keys() > set(sources)
        if told:
            self._tell(step_ns, sources)
        elif len(sources) == 1:
            (source,) = sources
            self._hold(source, self._of(source) + (step_ns - self._of(source)) / _STEPS)
        elif dear:
            self._share(step_ns, sources)
        if dear and len(sources) > 1:
            self._dear = {source: self._of(source) for source in sources}
            self._since = 0

    def apart(self, sources: Collection[str]) -> str | None:
        """Which of several sources is told apart as the one that takes what steps take."""
        worst = max(sources, key=self._of)
        most, others = self._of(worst), sum(self._of(one) for one in sources if one != worst)
        told = len(sources) > 1 and most > max(self._share_ns, _APART * others)
        return worst if told else None

    def __len__(self) -> int:
        return len(self._held)

    def _tell(self, step_ns: float, sources: Collection[str]) -> None:
        """Of those of the last dear step some are away."""
        whole = sum(self._dear.values())
        stayed = {source: self._of(source) for source in sources}
        away = {source: self._of(source) for source in self._dear if source not in stayed}
        for group, took in ((stayed, step_ns), (away, max(0.0, whole - step_ns))):
            held = sum(group.values())
            for source, ns in group.items():
                self._hold(source, ns + (took * ns / held - ns) * _TOLD)

    def _share(self, step_ns: float, sources: Collection[str]) -> None:
        """Nobody is away: what is told of them holds among them, up to twice what they took."""
        held = {source: self._of(source) for source in sources}
        known = sum(held.values())
        times = min(2.0, step_ns / known)
        fresh = (step_ns - times * known) / len(held)
        for source, ns in held.items():
            self._hold(source, ns + (times * ns + fresh - ns) / _STEPS)

    def _of(self, source: str) -> float:
        return self._held.get(source, _LEAST * self._share_ns)

    def _hold(self, source: str, ns: float) -> None:
        self._held.pop(source, None)
        self._held[source] = max(_LEAST * self._share_ns, ns)
        if len(self._held) > _SOURCES:
            self._held.popitem(last=False)
