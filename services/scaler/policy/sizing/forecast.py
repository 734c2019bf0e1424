"""What demand is to be at the end of a start, by the same time of the day before.

Pure. The growth that the day before had over a start is what this day is taken to have. The
forecast is judged against none, by the mean error of the logarithm, and only used while it is the
better of the two over what was recorded.
"""

import math
from dataclasses import dataclass, replace

BUCKET_SECONDS = 600.0
BUCKETS = 144
"""A day."""
GROWTH_LEAST, GROWTH_MOST = 0.5, 2.0
HALF_LIFE = 144.0
"""Buckets after which an error counts half."""
LEAST_JUDGED = 36.0
"""Buckets that were judged before the forecast may be used."""


@dataclass(frozen=True, slots=True)
class Season:
    """Mean rates of the last day, and how the forecast did.

    Attributes:
        rates: by bucket of the day; None: not seen.
        bucket: the present one, counted from 1970; -1: none yet.
        total, ticks: of the rates in it.
        mean: of the bucket before.
        said: growth from that to the present one, as forecast; None: nothing was.
        error, plain: decayed sums of errors with the forecast and without one.
        judged: buckets that say so, decayed.
    """

    rates: tuple[float | None, ...] = (None,) * BUCKETS
    bucket: int = -1
    total: float = 0.0
    ticks: int = 0
    mean: float = 0.0
    said: float | None = None
    error: float = 0.0
    plain: float = 0.0
    judged: float = 0.0


def noted(before: Season, wall: float, rate: float) -> Season:
    """With the rate of this tick; `wall` in seconds since 1970."""
    bucket = int(wall // BUCKET_SECONDS)
    if bucket == before.bucket:
        return replace(before, total=before.total + rate, ticks=before.ticks + 1)
    season = before
    if before.ticks and before.bucket >= 0:
        season = _closed(before, before.total / before.ticks)
    if not 0 < bucket - before.bucket <= BUCKETS:  # a jump: the day before is not the day before
        season = Season()
    elif bucket - before.bucket > 1:
        rates = list(season.rates)
        for missing in range(before.bucket + 1, bucket):
            rates[missing % BUCKETS] = None
        season = replace(season, rates=tuple(rates), said=None)
    return replace(season, bucket=bucket, total=rate, ticks=1)


def growth(season: Season, wall: float, horizon: float) -> float:
    """Demand at the end of the horizon by demand now; 1 while the forecast is not the better."""
    if season.judged < LEAST_JUDGED or season.error >= season.plain:
        return 1.0
    return _grown(season, int(wall // BUCKET_SECONDS), horizon) or 1.0


def _grown(season: Season, bucket: int, horizon: float) -> float | None:
    """What the day before grew by; between two buckets in proportion to the time."""
    now, then = season.rates[bucket % BUCKETS], season.rates[(bucket + 1) % BUCKETS]
    if now is None or then is None or now <= 0 or then <= 0:
        return None
    whole = min(max(then / now, GROWTH_LEAST), GROWTH_MOST)
    return float(whole ** min(horizon / BUCKET_SECONDS, 1.0))


def _closed(season: Season, mean: float) -> Season:
    """The bucket is over: judges what was said of it, and says something of the next."""
    index = season.bucket % BUCKETS
    if mean > 0 and season.said is not None and season.mean > 0:
        kept = 0.5 ** (1 / HALF_LIFE)
        season = replace(
            season,
            error=kept * season.error + abs(math.log(mean / (season.mean * season.said))),
            plain=kept * season.plain + abs(math.log(mean / season.mean)),
            judged=kept * season.judged + 1,
        )
    said = _grown(season, season.bucket, BUCKET_SECONDS)
    rates = (*season.rates[:index], mean, *season.rates[index + 1 :])
    return replace(season, rates=rates, mean=mean, said=said)
