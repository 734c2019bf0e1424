"""A size that somebody else has given a workload: respected for a while, or undone, never fought.

Pure. Who undoes what another undoes again changes the size for ever: after a few times in a row the
other's number is respected too, and said so.
"""

from dataclasses import dataclass, replace

UNDO_TIMES = 3
UNDO_SECONDS = 600.0
"""So often within this time a number is undone; then it is respected."""


@dataclass(frozen=True)
class Hands:
    """Who set a workload's number of replicas. Times are of one monotonic clock.

    Attributes:
        ours: the number that we set last, or found at the start; None: nothing was seen yet.
        theirs: a number that somebody else has set and that is respected; None: there is none.
        until: when that ends.
        undone: when others' numbers were undone.
        fought: it is respected only because it was set again and again.
    """

    ours: int | None = None
    theirs: int | None = None
    until: float = 0.0
    undone: tuple[float, ...] = ()
    fought: bool = False

    def set(self, replicas: int) -> "Hands":
        """We have set it."""
        return replace(self, ours=replicas, theirs=None, fought=False)

    def found(self, replicas: int, now: float, *, undo: bool, respect_seconds: float) -> "Hands":
        """It is found to be this number.

        Args:
            replicas: the number.
            now: when.
            undo: others' numbers are to be undone.
            respect_seconds: how long they are respected otherwise.
        """
        if self.ours is None:
            return Hands(ours=replicas)
        if self.theirs is not None and now >= self.until:
            return replace(self, ours=replicas, theirs=None, fought=False)
        if replicas in (self.ours, self.theirs):
            gone = replicas == self.ours
            return replace(self, theirs=None, fought=False) if gone else self
        undone = tuple(at for at in self.undone if now - at < UNDO_SECONDS)
        fought = undo and len(undone) >= UNDO_TIMES
        if undo and not fought:
            return replace(self, ours=replicas, theirs=None, undone=(*undone, now))
        until = now + respect_seconds
        return replace(self, theirs=replicas, until=until, undone=undone, fought=fought)

    def said(self, now: float) -> str:
        """What a pool's trouble says of it; empty: nothing."""
        if self.theirs is None:
            return ""
        left = max(0.0, self.until - now)
        again = "again and again " if self.fought else ""
        return f"somebody else set {self.theirs} replicas {again}and has {left:.0f} s more of it"
