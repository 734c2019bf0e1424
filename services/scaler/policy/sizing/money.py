"""What all pools may cost: an hour at any time, and a day from midnight UTC.

Pure. What runs is counted at its price. The ceiling of a day leaves what the least sizes cost until
midnight untouched; what is beyond that may be spent at any rate, and dries up gently near its end.
Least sizes run even when the day's money is gone: nobody wants to save an outage's worth. The
ceiling of an hour holds for all, and what drains counts until it is gone: nothing starts beside it
that would go over the ceiling. It takes nothing from what serves, which would drain and cost too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from services.scaler.policy.sizing.budget import SLACK, Claim, Grant, Limit, granted
from services.scaler.policy.sizing.settings import Money
from services.scaler.policy.sizing.views import Bound

DAY_SECONDS = 86_400.0
GAP_SECONDS = 300.0
"""Of a longer time between ticks no more than this is counted: nobody knows what ran."""
GENTLE_HOURS = 300.0 / 3600
"""What is left of a day is spent no faster than within this: replicas take time to go."""
HOUR, DAY = "hour", "day"
DRAINING = "hour with what still drains"

OVER_SECONDS = 2 * DAY_SECONDS
"""Once so much was counted after a day, no clock goes back to it."""
KEPT_DAYS = 8
"""Of more days, the two neighbours that were counted shortest are counted as one, at the later."""


class Day(NamedTuple):
    """What was counted while the clock was on a day.

    Attributes:
        day: since 1970, UTC.
        usd: what was spent.
        seconds: how long it was counted.
    """

    day: int
    usd: float
    seconds: float = DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent lately.

    Attributes:
        days: the latest last; empty: nothing was counted yet.
        wall: until when it is counted, in seconds since 1970.
        behind_seconds: for how long the clock has been on an earlier day than the latest.
        at: `wall` in monotonic seconds; None: another process counted it.
    """

    days: tuple[Day, ...] = ()
    wall: float = 0.0
    behind_seconds: float = 0.0
    at: float | None = None

    @property
    def usd(self) -> float:
        """What counts as spent today: what was spent on later days, by this clock, came before."""
        today = day_of(self.wall)
        return sum(one.usd for one in self.days if one.day >= today)


def day_of(wall: float) -> int:
    """The day, counted from 1970, UTC."""
    return int(wall // DAY_SECONDS)


def spent(before: Spent, usd_per_hour: float, *, now: float, wall: float) -> Spent:
    """What was spent by now, with what ran since the last tick, by the monotonic clock.

    A wall clock that goes back to an earlier day gives no money back, neither then nor when it
    comes forward again: what is spent meanwhile goes to the latest day. Once it has been back for a
    whole day, it is the later days that are taken to have been wrong, and the next midnight counts.
    A clock that goes ahead begins a day's money: nobody can tell it from one who slept. When it
    comes back, nothing is forgotten, however many days it has been on.

    Args:
        before: what was spent by the last tick.
        usd_per_hour: what ran since.
        now: monotonic seconds.
        wall: seconds since 1970.
    """
    today = day_of(wall)
    if not before.days:
        return Spent((Day(today, 0.0, 0.0),), wall, at=now)
    passed = now - before.at if before.at is not None else wall - before.wall
    passed = min(max(passed, 0.0), GAP_SECONDS)
    *earlier, latest = before.days
    behind = before.behind_seconds + passed if today < latest.day else 0.0
    if behind > DAY_SECONDS and today > day_of(before.wall):
        right = (one for one in before.days if one.day < today)
        return Spent((*right, _more(Day(today, 0.0, 0.0), passed, usd_per_hour)), wall, at=now)
    if today <= latest.day:
        return Spent((*earlier, _more(latest, passed, usd_per_hour)), wall, behind, now)
    since = min(passed, wall - today * DAY_SECONDS)
    until = _more(latest, passed - since, usd_per_hour)
    begun = _more(Day(today, 0.0, 0.0), since, usd_per_hour)
    return Spent(_few((*earlier, until, begun)), wall, at=now)


def _more(day: Day, seconds: float, usd_per_hour: float) -> Day:
    return Day(day.day, day.usd + usd_per_hour * seconds / 3600, day.seconds + seconds)


def _few(days: tuple[Day, ...]) -> tuple[Day, ...]:
    """Without days that are over for good; days that a clock jumped to are short, and go first."""
    while sum(one.seconds for one in days[1:]) > OVER_SECONDS:
        days = days[1:]
    while len(days) > KEPT_DAYS:
        pairs = list(pairwise(days[:-1]))
        place = min(range(len(pairs)), key=lambda at: sum(one.seconds for one in pairs[at]))
        one, other = pairs[place]
        both = Day(other.day, one.usd + other.usd, one.seconds + other.seconds)
        days = (*days[:place], both, *days[place + 2 :])
    return days


def ceilings(
    money: Money, now: Spent, wall: float, prices: Mapping[str, float], least_usd_per_hour: float
) -> list[Limit]:
    """What may run now, in USD an hour.

    Args:
        money: the policy's.
        now: what was spent today.
        wall: seconds since 1970.
        prices: of a replica an hour, by pool.
        least_usd_per_hour: what the least sizes cost.
    """
    limits = []
    if money.usd_per_hour is not None:
        limits.append(Limit(Bound.MONEY, HOUR, money.usd_per_hour, prices))
    if money.usd_per_day is not None:
        hours = (DAY_SECONDS - wall % DAY_SECONDS) / 3600
        over = money.usd_per_day - now.usd - least_usd_per_hour * hours
        rate = least_usd_per_hour + max(over, 0.0) / GENTLE_HOURS
        limits.append(Limit(Bound.MONEY, DAY, rate, prices))
    return limits


def startable(
    usd_per_hour: float,
    runs_usd_per_hour: float,
    *,
    claims: Mapping[str, Claim],
    kept: Mapping[str, int],
    prices: Mapping[str, float],
    priorities: Mapping[str, int],
) -> dict[str, Grant]:
    """What each pool may have until what drains is gone; only what is to start can be too much.

    Args:
        usd_per_hour: the ceiling.
        runs_usd_per_hour: what all that runs costs, draining replicas included.
        claims: what each pool was granted of the ceiling, as if nothing drained.
        kept: replicas that serve or start, by pool.
        prices: of a replica an hour, by pool.
        priorities: by pool.
    """
    more = {
        pool: Claim(max(claim.wished - kept[pool], 0), max(claim.least - kept[pool], 0))
        for pool, claim in claims.items()
    }
    room = max(usd_per_hour * (1 + SLACK) - runs_usd_per_hour, 0.0)
    grants = granted(more, [Limit(Bound.MONEY, DRAINING, room, prices)], priorities)
    found = {}
    for pool, grant in grants.items():
        size, short = min(claims[pool].wished, kept[pool]) + grant.size, grant.short
        if short is not None:
            asked = runs_usd_per_hour + (short.value or 0.0)
            short = replace(short, size=size, value=asked, limit=usd_per_hour)
        found[pool] = Grant(size, short)
    return found
