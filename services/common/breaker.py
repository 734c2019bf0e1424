"""A circuit breaker as a value: whether something that fails again and again may be used now.

Closed, everything goes through. After `threshold` failures in a row it is open: nothing does, for
as long as its rest says. Then it is half-open: one trial goes through. If that succeeds it is
closed; if it fails, it is open again, for longer. (Michael Nygard, "Release It!", 2007.)

Pure, so that policies can read it and histories can be tested: each event gives the next breaker.
Nothing here says what a failure is.
"""

from dataclasses import dataclass, replace

from services.common.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Breaker:
    """State of whatever its keeper uses it for. Times are seconds on any one clock.

    Attributes:
        threshold: failures in a row that open it, at least 1.
        rest: how long it is open, by how often in a row it has opened; `cap_seconds` is also how
            long a trial may take: one that nobody decides, as its caller left, gives way to
            another.
        failures: in a row, not counting those of uses that began before it opened.
        open_until: nothing may go through before; 0 while closed.
        trial: one is under way.
    """

    threshold: int
    rest: Backoff
    failures: int = 0
    open_until: float = 0.0
    trial: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing is wrong, as far as is known."""
        return self.failures < self.threshold

    def allows(self, now: float) -> bool:
        """Whether one more use may go through; who uses it then says so with `tried`."""
        return self.failures < self.threshold or now >= self.open_until

    def tried(self, now: float) -> "Breaker":
        """After a use has gone through, which is the trial unless the breaker is closed."""
        if self.closed:
            return self
        return replace(self, open_until=now + self.rest.cap_seconds, trial=True)

    def failed(self, now: float, chance: float = 1.0) -> "Breaker":
        """After a use has failed.

        Args:
            now: when.
            chance: spreads the rest, as in `Backoff.seconds`.
        """
        if not self.closed and not self.trial and now < self.open_until:
            return self  # the use began before it opened: no news
        failures = self.failures + 1
        if failures < self.threshold:
            return replace(self, failures=failures)
        rest = self.rest.seconds(failures - self.threshold + 1, chance)
        return replace(self, failures=failures, open_until=now + rest, trial=False)

    def succeeded(self) -> "Breaker":
        """After a use has succeeded: it is closed, and nothing is held against it."""
        if self.failures == 0:
            return self
        return replace(self, failures=0, open_until=0.0, trial=False)
