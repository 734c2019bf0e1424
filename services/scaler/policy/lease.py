"""Which of several scalers acts: the one that holds a Lease.

Pure. As in client-go's leader election no clock of another machine is believed: a Lease runs out
when nobody has changed it for its duration, by the clock of who looks.
"""

from dataclasses import dataclass
from enum import StrEnum

DURATION_SECONDS = 15
"""How long a Lease that nobody renews still holds."""

RENEW_SECONDS = 10.0
"""A holder that could not renew it for so long acts no more: well before another may take it."""

RETRY_SECONDS = 2.0
"""Between two looks at it."""


@dataclass(frozen=True)
class Record:
    """What a Lease says.

    Attributes:
        holder: who holds it; empty: nobody.
        duration_seconds: how long it holds without being renewed.
        renewed: when the holder says that it renewed it; only whether it changes matters.
        transitions: how often it went from one holder to another.
        version: the cluster's, to replace it only as it was seen.
    """

    holder: str
    duration_seconds: float
    renewed: str
    transitions: int
    version: str


class Step(StrEnum):
    """What to do about a Lease."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def step(record: Record | None, unchanged_seconds: float, identity: str) -> Step:
    """What the scaler of this identity does now.

    Args:
        record: what the Lease says; None: there is none.
        unchanged_seconds: for how long we have seen it say so.
        identity: of the scaler.
    """
    if record is None:
        return Step.CREATE
    if record.holder == identity:
        return Step.RENEW
    if not record.holder or unchanged_seconds >= record.duration_seconds:
        return Step.TAKE
    return Step.WAIT
