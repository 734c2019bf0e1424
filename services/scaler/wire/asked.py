"""What requests about scaling files have in common, checked."""

from collections.abc import Iterator

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.durations import seconds_of
from services.common.errors import BadRequest, Violation
from services.scaler.changes.asked import DAY_SECONDS
from services.scaler.history.recorder import DAYS
from services.scaler.policy.recorded import MINUTE_SECONDS

MAX_BYTES = 64 << 10
"""Of a file that is sent: of 1 KiB for each of 64 pools. One that is written on the host may have
more."""
USUAL_DAYS = 7


def content_violations(content: str) -> Iterator[Violation]:
    """What is wrong with a file before it is read."""
    if not content.strip():
        yield Violation("content", "is required")
    elif (size := len(content.encode())) > MAX_BYTES:
        rule = f"must have at most {MAX_BYTES:,} bytes, got {size:,}"
        yield Violation("content", f"{rule}; a larger file is written on its host")


def span_violations(request: pb.ApplyPolicyRequest | pb.PlanPolicyRequest) -> Iterator[Violation]:
    """What is wrong with the recorded days that are asked for."""
    if (
        request.HasField("span")
        and not MINUTE_SECONDS <= seconds_of(request.span) <= DAYS * DAY_SECONDS
    ):
        yield Violation("span", f"must be a minute to {DAYS} days")


def span_of(request: pb.ApplyPolicyRequest | pb.PlanPolicyRequest) -> float:
    """Seconds of recorded load that are asked for."""
    return seconds_of(request.span) if request.HasField("span") else USUAL_DAYS * DAY_SECONDS


def refuse(wrong: list[Violation]) -> None:
    """Refuses what is wrong.

    Raises:
        BadRequest: anything is.
    """
    if wrong:
        raise BadRequest.of(*wrong)
