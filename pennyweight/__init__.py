"""Pennyweight serves language models for pennies; this package is what its callers install.

`Client` asks for answers, `PennyweightError` is what it raises, and ``pennyweight.<service>.v1``
are the contract's stubs.
"""

from pennyweight.answers import (
    Answer,
    Cost,
    Decision,
    Delta,
    Event,
    Explanation,
    Finished,
    Message,
    Options,
    Route,
    RouteList,
    Started,
    Tier,
    Timings,
    Usage,
)
from pennyweight.client import Client
from pennyweight.errors import (
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    NotFound,
    Overloaded,
    PennyweightError,
    Unauthenticated,
    Unavailable,
    Violation,
)

__all__ = [
    "Answer",
    "BadRequest",
    "Client",
    "Cost",
    "DeadlineExceeded",
    "Decision",
    "Delta",
    "Event",
    "Explanation",
    "Finished",
    "Forbidden",
    "InternalError",
    "Message",
    "NotFound",
    "Options",
    "Overloaded",
    "PennyweightError",
    "Route",
    "RouteList",
    "Started",
    "Tier",
    "Timings",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Violation",
]
