"""What all pools may cost: an hour at any time, and a day from midnight UTC.

Pure. What runs is counted at its price. The ceiling of a day leaves what the least sizes cost until
midnight untouched; what is beyond that may be spent at any rate, and dries up gently near its end.
Least sizes run even when the day's money is gone: nobody wants to save an outage's worth. The
ceiling of an hour holds for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.scaler.policy.sizing.budget import Limit
from services.scaler.policy.sizing.settings import Money
from services.scaler.policy.sizing.views import Bound

DAY_SECONDS = 86_400.0
GAP_SECONDS = 300.0
"""Of a longer time between ticks no more than this is counted: nobody knows what ran."""
GENTLE_HOURS = 300.0 / 3600
"""What is left of a day is spent no faster than within this: replicas take time to go."""
HOUR, DAY = "hour", "day"


KEPT_DAYS = 3
"""So many days are remembered, for a clock that goes back to one of them."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent lately.

    Attributes:
        days: days since 1970, UTC, the latest last, with what was spent in each; empty: nothing
            was counted yet.
        wall: until when it is counted, in seconds since 1970.
        behind_seconds: for how long the clock has been on an earlier day than the latest.
    """

    days: tuple[tuple[int, float], ...] = ()
    wall: float = 0.0
    behind_seconds: float = 0.0

    @property
    def usd(self) -> float:
        """What counts as spent today: what was spent on later days, by this clock, came before."""
        today = day_of(self.wall)
        return sum(usd for day, usd in self.days if day >= today)


def day_of(wall: float) -> int:
    """The day, counted from 1970, UTC."""
    return int(wall // DAY_SECONDS)


def spent(before: Spent, wall: float, usd_per_hour: float) -> Spent:
    """What was spent by now, with what ran since the last tick.

    A clock that goes back to an earlier day gives no money back, neither then nor when it comes
    forward again: what is spent meanwhile goes to the latest day. Once it has been back for a whole
    day, it is the later days that are taken to have been wrong, and the next midnight counts. A
    clock that goes ahead begins a day's money: nobody can tell it from one who slept.
    """
    day = day_of(wall)
    if not before.days:
        return Spent(((day, 0.0),), wall)
    latest, so_far = before.days[-1]
    gone = min(max(wall - before.wall, 0.0), GAP_SECONDS)
    if day > latest:
        gone = min(gone, wall - day * DAY_SECONDS)
        days = (*before.days, (day, usd_per_hour * gone / 3600))
        return Spent(days[-KEPT_DAYS:], wall)
    behind = before.behind_seconds + gone if day < latest else 0.0
    if behind > DAY_SECONDS and day > day_of(before.wall):
        earlier = tuple(one for one in before.days if one[0] < day)
        return Spent((*earlier, (day, usd_per_hour * gone / 3600)), wall)
    return Spent((*before.days[:-1], (latest, so_far + usd_per_hour * gone / 3600)), wall, behind)


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
