"""Figures of decisions in their units: each bound of a size measures another thing."""

import datetime as dt
from collections.abc import Callable, Mapping

from pennyweight.command.show import dollars, moment

_Figure = Callable[[float], str]
_MICRO = 1_000_000
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


def _bare(value: float) -> str:
    return f"{value:,.4g}"


def _of(unit: str) -> _Figure:
    return lambda value: f"{value:,.4g} {unit}"


def _replicas(value: float) -> str:
    return f"{value:,.4g} replica{'' if value == 1 else 's'}"


def _percent(value: float) -> str:
    return f"{100 * value:,.3g} %"


def _money(value: float) -> str:
    return f"{dollars(round(value * _MICRO))} an hour"


def _until(value: float) -> str:
    return moment(dt.datetime.fromtimestamp(value, dt.UTC))


_WORK = (_of("work"), _of("work each"))
_SIZES = (_replicas, _replicas)
_UNITS: Mapping[str, tuple[_Figure, _Figure]] = {
    **dict.fromkeys(("demand", "forecast", "headroom", "hold", "queue"), _WORK),
    **dict.fromkeys(("fixed", "min", "max", "room", "schedule", "spot", "rate"), _SIZES),
    "stabilization": (_replicas, _of("s")),
    "idle": (_of("s"), _of("s")),
    "spare": (_of("work"), _percent),
    "tolerance": (_percent, _percent),
    "burst": (_replicas, _of("times")),
    "money": (_money, _money),
    "override": (_bare, _until),
}


def measured_and_against(
    bound: str, detail: str, value: float | None, limit: float | None
) -> tuple[str, str]:
    """What was measured and what it was held against, with their units; a dash for nothing.

    Work is replica-seconds a second; what signals, rules and budgets count has the unit of these.
    """
    units = _UNITS.get(bound, (_bare, _bare))
    if bound == "tolerance" and detail:  # of a signal
        units = (_bare, _bare)
    cells = zip(units, (value, limit), strict=True)
    measured, against = ("-" if one is None else figure(one) for figure, one in cells)
    return measured, against


def span(seconds: float) -> str:
    """How long, in the unit that fits."""
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.1f} days"
    if seconds >= 2 * _HOUR:
        return f"{seconds / _HOUR:.1f} hours"
    return f"{seconds / _MINUTE:.0f} minutes"
