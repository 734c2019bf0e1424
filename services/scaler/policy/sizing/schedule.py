"""Bounds by time of day: which hold now, worked out only when a time of a schedule passes.

Pure: the time is an argument. Times are those of cron in the schedule's own time zone: an hour that
is skipped in spring is made up for, one that comes twice in autumn counts once (`cronsim`, in the
manner of Debian's cron).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from services.scaler.policy.sizing.settings import Schedule

FIELDS = 5
LATEST = 253_370_764_800.0
"""The year 9999, in seconds since 1970: no date lies beyond."""
_PROBE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Times:
    """What holds from one time to another, in seconds since 1970.

    Attributes:
        schedules: that this is about.
        active: which of them hold, by place.
        since, until: when it is so.
    """

    schedules: tuple[Schedule, ...] = ()
    active: tuple[int, ...] = ()
    since: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and most replicas, and which schedule says so, with its zone; None: none does."""

    least: int | None = None
    most: int | None = None
    least_by: str = ""
    most_by: str = ""


def problem_of(schedule: Schedule) -> tuple[str, str] | None:
    """The key that is wrong and the rule it breaks; None: neither is."""
    try:
        zone = ZoneInfo(schedule.time_zone)
    except (OSError, ValueError, KeyError):  # unreadable, no name of one, unknown
        return "time_zone", "must be the name of a time zone, such as Europe/Berlin"
    wrong = _wrong_in(schedule.cron, zone)
    return None if wrong is None else ("cron", wrong)


def _wrong_in(cron: str, zone: ZoneInfo) -> str | None:
    if len(cron.split()) != FIELDS:
        return "must have five fields: minute, hour, day of month, month and day of week"
    try:
        next(CronSim(cron, _PROBE.astimezone(zone)))
    except CronSimError as error:
        if not _is_right_in_other_months(cron):
            return f"must be a cron expression; wrong: {_field_of(error)}"
    except StopIteration:
        pass
    else:
        return None
    return "must come true on some day; this one never does"


def times(before: Times, schedules: Sequence[Schedule], wall: float) -> Times:
    """Which schedules hold at `wall`; what was worked out before is taken while it holds."""
    same = before.schedules is schedules or before.schedules == tuple(schedules)
    if same and before.since <= wall < before.until:
        return before
    wall = min(max(wall, 0.0), LATEST)
    active = []
    since, until = 0.0, LATEST
    for place, schedule in enumerate(schedules):
        last, following = _around(schedule, wall)
        end = last + schedule.duration_seconds
        since = max(since, last)
        if wall < end:
            active.append(place)
            until = min(until, end)
        else:
            since = max(since, end)
            until = min(until, following)
    return Times(tuple(schedules), tuple(active), since, until)


def bounds(now: Times) -> Bounds:
    """The greatest of the bounds that hold."""
    least: int | None = None
    most: int | None = None
    least_by = most_by = ""
    for place in now.active:
        schedule = now.schedules[place]
        if schedule.min is not None and (least is None or schedule.min > least):
            least, least_by = schedule.min, _named(schedule)
        if schedule.max is not None and (most is None or schedule.max > most):
            most, most_by = schedule.max, _named(schedule)
    return Bounds(least, most, least_by, most_by)


def _named(schedule: Schedule) -> str:
    return f"{schedule.cron} ({schedule.time_zone})"


def _around(schedule: Schedule, wall: float) -> tuple[float, float]:
    """The last time at or before `wall`, and the next after it."""
    zone = ZoneInfo(schedule.time_zone)
    following = _next(schedule.cron, datetime.fromtimestamp(wall, zone))
    # Going backwards from a moment after: the time itself is then among those found.
    moment = datetime.fromtimestamp(int(wall) + 1, zone)
    last = _next(schedule.cron, moment, reverse=True)
    return (0.0 if last is None else last), (LATEST if following is None else following)


def _next(cron: str, moment: datetime, *, reverse: bool = False) -> float | None:
    try:
        return next(CronSim(cron, moment, reverse=reverse)).timestamp()
    except (StopIteration, OverflowError):
        return None


def _is_right_in_other_months(cron: str) -> bool:
    """Whether only the month is too short for the day."""
    minute, hour, day, month, week_day = cron.split()
    try:
        CronSim(f"{minute} {hour} {day} * {week_day}", _PROBE)
        CronSim(f"* * * {month} *", _PROBE)
    except CronSimError:
        return False
    return True


def _field_of(error: CronSimError) -> str:
    """The field that the library found wrong, in our words."""
    field = str(error).rpartition(" ")[2]
    return f"{field.replace('-', ' ')}, {_RANGES[field]}" if field in _RANGES else "its form"


_RANGES = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT",
}
