"""Which engine processes there are: the one that takes requests, its successor, its predecessor.

Decides when another is started; leaves requests, and what engines say, to the dispatcher. Time is
an argument, monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engines.cpu.messages import Census
from engines.cpu.request import Generation, Guide, guide_hash
from engines.cpu.stub.link import Link
from engines.cpu.suspicion import Suspect, Suspicion

TURN_SECONDS = 1.0
"""So often an engine speaks, and the dispatcher turns."""

_MAX_RESTART_SECONDS = 10.0
_REPLACE_AGAIN_SECONDS = 60.0
_GUILTY = 4096
_GUILTY_OF_ONE = 3  # guides of a source: then no new ones of it are tried for a while
_DISTRUST_SECONDS = 600.0
_SOURCES = 256
_SUMS = ("running", "in_context", "context_tokens", "waiting", "used_blocks")


@dataclass(eq=False)
class EngineProcess:
    """One engine process.

    Attributes:
        link: the way to it.
        ready: it is loaded, and not lost.
        silence: seconds since it was heard of.
        census: its own accounting, the latest.
    """

    link: Link
    ready: bool = False
    silence: float = 0.0
    census: Census = field(default_factory=Census)

    def quiet(self, pause: float) -> float:
        """Add a turn in which it said nothing; return the silence so far.

        A dispatcher that was itself away heard nobody: only so much of its pause counts.
        """
        if self.ready:
            self.silence += min(pause, 2 * TURN_SECONDS)
        return self.silence


class Processes:
    """The engine processes of one model.

    `most_kept` bytes of compiled guides make an engine be replaced.

    Attributes:
        current: takes requests; None while it is started again.
        coming: will be the current one, once it is loaded.
        leaving: was the current one, and ends the requests whose key is below `boundary`.
    """

    def __init__(self, launch: Callable[[], Link], most_kept: int) -> None:
        self._launch = launch
        self._most_kept = most_kept
        self._restart_at = 0.0
        self._restart_pause = 0.0
        self._replace_at = 0.0
        self.current: EngineProcess | None = None
        self.coming: EngineProcess | None = None
        self.leaving: EngineProcess | None = None
        self.boundary = 0

    def all(self) -> list[EngineProcess]:
        """Every one there is."""
        return [one for one in (self.leaving, self.current, self.coming) if one]

    def of(self, key: int) -> EngineProcess | None:
        """The one that runs a request."""
        return self.leaving if key < self.boundary else self.current

    def next_start(self, now: float) -> float | None:
        """When another is to be started; None: not before something happens."""
        if self.coming:
            return None
        if self.current is None:
            return self._restart_at
        full = self.current.census.guide_bytes >= self._most_kept
        return max(now, self._replace_at) if full and not self.leaving else None

    def start(self) -> EngineProcess:
        """Start another, which takes requests once it is ready."""
        self.coming = EngineProcess(self._launch())
        return self.coming

    def take_over(self, process: EngineProcess, key: int) -> None:
        """The one that was coming is ready: requests from this key on are its."""
        if process is not self.coming:
            return
        process.ready = True
        if self.current:
            self.leaving, self.boundary = self.current, key
        self.current, self.coming = process, None
        self._restart_pause = 0.0

    def lose(self, process: EngineProcess, now: float) -> None:
        """Forget one that has ended; another is started in its place, later each time."""
        process.ready = False
        if process is self.leaving:
            self.leaving = None
            return
        if process is self.coming:
            self.coming = None
        else:
            self.current = None
        self._replace_at = now + _REPLACE_AGAIN_SECONDS
        self._restart_at = now + self._restart_pause
        self._restart_pause = min(_MAX_RESTART_SECONDS, max(0.5, 2 * self._restart_pause))

    def done(self, keys: Iterable[int]) -> EngineProcess | None:
        """The one that left, once it runs none of these; it is forgotten."""
        if self.leaving is None or any(key < self.boundary for key in keys):
            return None
        done, self.leaving = self.leaving, None
        return done

    def well(self, within_seconds: float) -> bool:
        """Whether the current one has been heard of lately."""
        engine = self.current
        return engine is not None and engine.ready and engine.silence < within_seconds

    def census(self) -> Census:
        """The accounting of those that run something, together."""
        census = self.current.census if self.current else Census()
        if self.leaving is None:
            return census
        old = self.leaving.census
        return census._replace(
            **{name: getattr(old, name) + getattr(census, name) for name in _SUMS}
        )


class Suspects:
    """Guides over which engines ended, or fell silent; the latest ones."""

    def __init__(self) -> None:
        self._suspicion = Suspicion()
        self._guilty: OrderedDict[bytes, None] = OrderedDict()
        self._sources: OrderedDict[str, tuple[int, float]] = OrderedDict()  # guilty ones, and when

    def ended(self, among: Iterable[Generation], beside: Iterable[str], now: float) -> None:
        """An engine ended, or fell silent, in a step that followed the guides of these.

        One of them is why, maybe. `beside` are the sources of all that may have been there.
        """
        suspects = (Suspect(one.source, guide_hash(one.guide)) for one in among if one.guide)
        self._suspicion.accuse(frozenset(suspects), beside, now)

    def convict(self, guide: Guide) -> None:
        """Nothing else can be why: it may not run again, whoever asks."""
        key = guide_hash(guide)
        self._guilty.pop(key, None)
        self._guilty[key] = None
        if len(self._guilty) > _GUILTY:
            self._guilty.popitem(last=False)

    def note_source(self, source: str, now: float) -> None:
        """A guide of that source was guilty; nothing is noted of an empty one."""
        if source:
            count, at = self._sources.pop(source, (0, now))
            self._sources[source] = (count + 1 if now - at < _DISTRUST_SECONDS else 1), now
            if len(self._sources) > _SOURCES:
                self._sources.popitem(last=False)

    def trusts(self, source: str, now: float) -> bool:
        """Whether new guides of that source are tried."""
        count, at = self._sources.get(source, (0, now))
        return count < _GUILTY_OF_ONE or now - at >= _DISTRUST_SECONDS

    def clear(self, guide: Guide) -> None:
        """An answer that follows it has come to its end."""
        if self._suspicion:
            self._suspicion.clear(guide_hash(guide))

    def guilty(self, guide: Guide) -> bool:
        """Whether an engine ended over it, and certainly so."""
        return bool(self._guilty) and guide_hash(guide) in self._guilty

    def doubted(self, guide: Guide, source: str, now: float) -> bool:
        """Whether engines ended over it lately, as it seems, when that source asked for it."""
        if not self._suspicion:
            return False
        return self._suspicion.doubted(Suspect(source, guide_hash(guide)), now)
