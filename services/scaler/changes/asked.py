"""What is asked of scaling files, and what comes of it."""

from dataclasses import dataclass

from services.scaler.config import Notes
from services.scaler.history.versions import Version
from services.scaler.policy.plans import Plan

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Checked:
    """What is to be said of a file that would be taken.

    Attributes:
        notes: of its pools.
        unserved: tiers that the file in force serves and it would not; empty: none.
    """

    notes: Notes
    unserved: str


@dataclass(frozen=True)
class Asked:
    """Who changes what, and why.

    Attributes:
        author: who asks for it.
        note: what it is for.
        anyway: why it is to come in force though it does worse, leaves a tier without a pool, or
            over a change of somebody else that is not in force; empty: it is not.
        based_on: hash of the file that the change began with; empty: whatever is in force.
        span_seconds: how much of the recorded load is tried.
        caller: whose turn it takes.
    """

    author: str
    note: str
    anyway: str = ""
    based_on: str = ""
    span_seconds: float = 7 * DAY_SECONDS
    caller: str = ""


@dataclass(frozen=True)
class Applied:
    """What came of a change.

    Attributes:
        hash: of the file.
        version: once it is in force; None: it is written, and comes in force soon.
        plan: what was found on the recorded load; None: it was not tried.
    """

    hash: str
    version: Version | None
    plan: Plan | None = None
