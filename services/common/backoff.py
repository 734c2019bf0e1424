"""How long to wait before something that failed is tried again.

Doubling up to a cap, with equal jitter: half of the wait is certain, so that nothing is ever
hammered, and half is drawn, so that those who failed together do not come back together (Marc
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). Pure: the caller keeps
count of its failures and brings the randomness.
"""

from dataclasses import dataclass

MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """A series of waits. State of none: who waits counts its failures.

    Attributes:
        first_seconds: longest wait after the first failure.
        cap_seconds: longest wait after any number of failures.
    """

    first_seconds: float
    cap_seconds: float

    def seconds(self, failures: int, chance: float = 1.0) -> float:
        """Seconds to wait after so many failures in a row; 0 after none.

        Args:
            failures: since the last success.
            chance: drawn from [0, 1): `random.random()`. 1 is the whole wait, without jitter.
        """
        if failures <= 0:
            return 0.0
        doubled = self.first_seconds * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
        return min(self.cap_seconds, doubled) * (1.0 + chance) / 2.0
