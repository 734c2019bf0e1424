"""Why a size, why not one fewer and why not one more: a plain sentence each, with figures.

Pure. Constraints come as the path left them: each one changed the size to its own, in order, so
that what holds the size up is the last one that raised it, and what holds it down the last one
that lowered it after that.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.scaler.policy.sizing.views import Bound, Constraint

DIGITS_LEAST, DIGITS_MOST = 2, 9
"""Behind the point of a load: what `replicas` of a demand tells apart has nine."""

_Words = Callable[[Constraint], str]


def why(size: int, constraints: Sequence[Constraint]) -> str:
    """Why this size: what was last to change it."""
    return sentences(size, constraints)[0]


def why_not_fewer(size: int, constraints: Sequence[Constraint]) -> str:
    """Why not one fewer; empty: there is none to spare."""
    return sentences(size, constraints)[1]


def why_not_more(size: int, constraints: Sequence[Constraint]) -> str:
    """Why not one more."""
    return sentences(size, constraints)[2]


def sentences(size: int, constraints: Sequence[Constraint]) -> tuple[str, str, str]:
    """All three: why, why not one fewer, why not one more."""
    if not constraints:
        fewer = f"Not {size - 1}: the size is kept as it is." if size > 0 else ""
        return (
            f"{_replicas(size)}: nothing asks for more.",
            fewer,
            f"Not {size + 1}: nothing asks for it.",
        )
    last, holds, caps = constraints[-1], _holds_up(size, constraints), _holds_down(constraints)
    last_said = _said(last)
    holds_said = last_said if holds is last else _said(holds)
    fewer = f"Not {size - 1}: {holds_said}." if size > 0 else ""
    if caps is not None:
        more = last_said if caps is last else _said(caps)
    elif holds.value is not None and holds.limit is not None and holds.bound in _LOADS:
        room = max(size * holds.limit - holds.value, 0.0)
        more = (
            f"{size} do {size * holds.limit:.2f} replicas' worth of work, "
            f"{room:.2f} more than is asked for"
        )
    else:
        more = f"nothing asks for more than {size}"
    if (pin := _cut(constraints)) is not None:
        last_said = f"{_said(pin)}, but {_said(replace(last, value=None))}"
    return f"{_replicas(size)}: {last_said}.", fewer, f"Not {size + 1}: {more}."


def _holds_up(size: int, constraints: Sequence[Constraint]) -> Constraint:
    """The last constraint that raised the size to at least this; else the first one there is."""
    for place in range(len(constraints) - 1, -1, -1):
        constraint = constraints[place]
        before = constraints[place - 1].size if place else 0
        if constraint.size >= size and (constraint.size > before or constraint.bound in _EITHER):
            return constraint
    return constraints[0]


def _holds_down(constraints: Sequence[Constraint]) -> Constraint | None:
    """The last constraint that lowered the size, if nothing raised it after that."""
    for place in range(len(constraints) - 1, -1, -1):
        constraint = constraints[place]
        before = constraints[place - 1].size if place else 0
        if constraint.bound in _EITHER or constraint.size < before:
            return constraint
        if constraint.size > before:
            return None
    return None


def _cut(constraints: Sequence[Constraint]) -> Constraint | None:
    """What a person set, where the last constraint cut it; None: there is none, or it holds."""
    last = constraints[-1]
    if last.bound not in _CUTS:
        return None
    given = (one for one in constraints[:-1] if one.bound is Bound.OVERRIDE)
    return next((one for one in given if one.size > last.size), None)


def _said(constraint: Constraint) -> str:
    return _WORDS[constraint.bound](constraint)


def _replicas(count: float) -> str:
    return f"{count:g} replica" if count == 1 else f"{count:g} replicas"


def _load(what: str) -> _Words:
    def said(of: Constraint) -> str:
        if of.detail == "places":
            return (
                f"requests fill the places of {of.value or 0:.2f} replicas, and it is not known "
                "yet what a replica can do"
            )
        value, limit = of.value or 0.0, of.limit or 0.0
        digits = _digits(value, limit)
        return (
            f"{what} {value:.{digits}f} replicas' worth of work, and one is planned to do "
            f"{limit:.{digits}f}"
        )

    return said


def _digits(load: float, usable: float) -> int:
    """As few, two at least, as from which a reader comes to the same number of replicas."""
    if not usable:
        return DIGITS_LEAST
    needed = math.ceil(load / usable - 1e-9)
    for digits in range(DIGITS_LEAST, DIGITS_MOST):
        rounded = round(usable, digits)
        if rounded and math.ceil(round(load, digits) / rounded - 1e-9) == needed:
            return digits
    return DIGITS_MOST


def _stable(of: Constraint) -> str:
    extreme = "least" if of.size < (of.value or 0) else "greatest"
    return (
        f"{_replicas(of.value or 0)} would do now, and the {extreme} size asked for in the last "
        f"{of.limit or 0:g} s holds"
    )


def _signal(of: Constraint) -> str:
    return f"signal {of.detail} is {of.value or 0:.4g} and is to be {of.limit or 0:.4g}"


def _tolerance(of: Constraint) -> str:
    if of.detail:
        return f"{_signal(of)}, near enough to change nothing"
    percent = 100 * (of.value or 0)
    return (
        f"demand is {percent:.0f} % of what the present size is for, within the tolerance of "
        f"{100 * (of.limit or 0):g} %"
    )


def _rule(of: Constraint) -> str:
    if of.detail == "none":
        return "no rule asks for a change"
    return f"rule {of.detail}: the signal is {of.value or 0:.4g}"


def _starting(of: Constraint) -> str:
    return f"rule {of.detail} waits for replicas that are starting"


def _idle(of: Constraint) -> str:
    if of.detail == "at zero":
        return "it is at zero, and nothing asks for it"
    known = "for an unknown time" if of.value is None else f"for {of.value:.0f} s"
    return f"it has been idle {known}, and goes to zero after {of.limit or 0:g} s"


def _override(of: Constraint) -> str:
    until = ""
    if of.limit is not None:
        until = f" until {datetime.fromtimestamp(of.limit, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{of.detail}{until}"


def _schedule(of: Constraint) -> str:
    if of.value is None:
        return f"the schedule {of.detail} has a min of {of.limit or 0:g}"
    return (
        f"the schedule {of.detail} has a max of {of.limit or 0:g}, and {of.value:g} are asked for"
    )


def _budget(of: Constraint) -> str:
    return f"budget {of.detail} has {of.limit or 0:g}, and {of.value or 0:g} are asked for"


def _money(of: Constraint) -> str:
    return (
        f"the ceiling of money per {of.detail} leaves ${of.limit or 0:,.2f} an hour, and "
        f"${of.value or 0:,.2f} are asked for"
    )


def _most(words: str) -> _Words:
    def said(of: Constraint) -> str:
        asked = "" if of.value is None else f", and {of.value:g} are asked for"
        return f"{words} {of.limit or 0:g}{asked}"

    return said


def _rate(of: Constraint) -> str:
    return f"{_replicas(of.value or 0)} are wanted, and the rates allow no more change for now"


_LOADS = (Bound.DEMAND, Bound.FORECAST, Bound.HEADROOM, Bound.HOLD, Bound.QUEUE)
_EITHER = (Bound.OVERRIDE, Bound.FIXED, Bound.SPOT)
"""These hold the size up and down alike."""
_CUTS = (Bound.MAX, Bound.ROOM)
"""These hold against a person too; so do budgets and money, which say what was asked for."""

_WORDS: Mapping[Bound, _Words] = {
    Bound.FIXED: lambda of: f"the policy names a fixed size of {of.size}",
    Bound.DEMAND: _load("requests ask for"),
    Bound.FORECAST: _load("the same time of the day before says that requests will ask for"),
    Bound.HEADROOM: _load("with headroom for growth while a replica starts it takes"),
    Bound.HOLD: _load("the demand of a moment ago, held against falling, took"),
    Bound.QUEUE: _load("with the requests that wait it takes"),
    Bound.SIGNAL: _signal,
    Bound.RULE: _rule,
    Bound.SCHEDULE: _schedule,
    Bound.MIN: lambda of: f"the least is {of.limit or 0:g}",
    Bound.MAX: _most("the most is"),
    Bound.ROOM: _most("there is room for"),
    Bound.TOLERANCE: _tolerance,
    Bound.STABILIZATION: _stable,
    Bound.RATE: _rate,
    Bound.SPARE: lambda of: (
        f"with one fewer, less than {100 * (of.limit or 0):g} % would be to spare of what they do"
    ),
    Bound.BURST: lambda of: (
        f"a burst asks for {of.value or 0:.2f} replicas' worth, and nothing goes while it lasts"
    ),
    Bound.SPOT: lambda of: (
        f"{of.detail}, since {of.value or 0:g} of {of.limit or 0:g} on spot serve"
    ),
    Bound.STALE: lambda of: f"not known: {of.detail}; so none goes",
    Bound.STARTING: _starting,
    Bound.IDLE: _idle,
    Bound.WOKEN: lambda _: "a request asks for a pool that has none",
    Bound.BUDGET: _budget,
    Bound.MONEY: _money,
    Bound.OVERRIDE: _override,
}
