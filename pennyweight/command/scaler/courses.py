"""How a pool fared in a trial: as the scaler tells it, and as the cells of a table."""

from dataclasses import dataclass

from pennyweight.command.show import dollars
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import name_of, seconds_of

FIGURES = ("hours", "cost", "in time", "changes/h", "wasted h", "wait", "most")
"""Hours are those of replicas."""


@dataclass(frozen=True)
class BoundShare:
    """How often one thing decided a pool's size, as a share of the decisions."""

    bound: str
    detail: str
    share: float


@dataclass(frozen=True)
class Course:
    """How a pool fared in a trial; attainment None: nothing was asked of it."""

    replica_hours: float
    micro_usd: int
    attainment: float | None
    changes_per_hour: float
    wasted_hours: float
    mean_wait_seconds: float
    max_size: int
    bounds: tuple[BoundShare, ...]


def course_of(message: pb.Course) -> Course:
    """A course as it is shown."""
    return Course(
        replica_hours=message.replica_hours,
        micro_usd=message.micro_usd,
        attainment=message.attainment if message.HasField("attainment") else None,
        changes_per_hour=message.changes_per_hour,
        wasted_hours=message.wasted_hours,
        mean_wait_seconds=seconds_of(message.mean_wait),
        max_size=message.max_size,
        bounds=tuple(
            BoundShare(name_of(pb.Bound.DESCRIPTOR, "BOUND", one.bound), one.detail, one.share)
            for one in message.bounds
        ),
    )


def figures_of(course: Course) -> tuple[str, ...]:
    """A course as cells, in the order of `FIGURES`."""
    attainment = course.attainment
    return (
        f"{course.replica_hours:,.2f}",
        dollars(course.micro_usd) if course.micro_usd else "-",
        "-" if attainment is None else f"{attainment:.2%}",
        f"{course.changes_per_hour:.2f}",
        f"{course.wasted_hours:.2f}",
        f"{course.mean_wait_seconds:.2f} s",
        str(course.max_size),
    )
