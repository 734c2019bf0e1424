"""One replica: what the scaler reports of it, what this router runs there and holds against it."""

from dataclasses import dataclass, field
from enum import StrEnum

from services.common.backoff import Backoff
from services.common.breaker import Breaker
from services.router.ports import EngineCall

WHOLE = Breaker(threshold=1, rest=Backoff(0.5, 8.0))
"""Of a replica that nothing is held against."""

SILENT = Breaker(threshold=1, rest=Backoff(20.0, 60.0))
"""Of one that fell silent. What is tried there next may wait in vain, so it is tried seldom."""


class State(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(eq=False)
class Replica:
    """A replica as the scaler reports it, and what this router runs there.

    Attributes:
        pool: it is of.
        calls: engine calls running on it, to be given up when it goes.
        in_flight: places taken, the ones about to start included.
        breaker: opens with its first failure: then it is avoided for a while.
        quiet_since: when it was given what it was silent over, if it has not said a word since and
            something ran there all the time.
    """

    id: str
    tier: str
    model: str
    precision: str
    address: str
    state: State
    max_in_flight: int
    pool: str = ""
    calls: set[EngineCall] = field(default_factory=set)
    in_flight: int = 0
    breaker: Breaker = WHOLE
    quiet_since: float | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it fell silent and has not answered since."""
        return self.breaker.rest is SILENT.rest

    def take(self) -> None:
        """Takes a place; `give_back` follows once."""
        self.in_flight += 1

    def give_back(self) -> None:
        """Gives a place back. One where nothing runs is not silent."""
        self.in_flight -= 1
        if not self.in_flight:
            self.quiet_since = None

    def silence(self, since: float) -> float:
        """Notes that it said nothing to somebody since then; returns since when to anybody."""
        quiet, spoke = self.quiet_since, [call.heard_at or 0.0 for call in self.calls]
        if quiet is None or quiet < max(spoke, default=0.0):  # a word may wait unread
            quiet = since
        quiet = min(quiet, since)
        self.quiet_since = quiet if self.in_flight else None
        return quiet

    def heard(self, at: float) -> None:
        """Notes a word that came then."""
        if self.quiet_since is not None and self.quiet_since <= at:
            self.quiet_since = None
