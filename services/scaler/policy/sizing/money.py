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


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent today.

    Attributes:
        day: days since 1970, UTC; -1: nothing was counted yet.
        usd: spent in it.
        wall: until when it is counted, in seconds since 1970.
    """

    day: int = -1
    usd: float = 0.0
    wall: float = 0.0


def spent(before: Spent, wall: float, usd_per_hour: float) -> Spent:
    """What was spent by now, with what ran since the last tick.

    A clock that goes back to an earlier day does not give money back.
    """
    day = int(wall // DAY_SECONDS)
    if before.day < 0:
        return Spent(day, 0.0, wall)
    gone = min(max(wall - before.wall, 0.0), GAP_SECONDS)
    if day > before.day:
        gone = min(gone, wall - day * DAY_SECONDS)
        return Spent(day, usd_per_hour * gone / 3600, wall)
    return Spent(day, before.usd + usd_per_hour * gone / 3600, wall)


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
