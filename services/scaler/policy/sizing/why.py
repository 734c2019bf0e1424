"""Why a size, why not one fewer and why not one more: a plain sentence each, with figures.

Pure. Constraints come as the path left them: each one changed the size to its own, in order, so
that what holds the size up is the last one that raised it, and what holds it down the last one
that lowered it after that.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from services.scaler.policy.sizing.views import Bound, Constraint

_Words = Callable[[Constraint], str]


def why(size: int, constraints: Sequence[Constraint]) -> str:
    """Why this size: what was last to change it."""
    if not constraints:
        return f"{_replicas(size)}: nothing asks for more."
    return f"{_replicas(size)}: {_said(constraints[-1])}."


def why_not_fewer(size: int, constraints: Sequence[Constraint]) -> str:
    """Why not one fewer; empty: there is none to spare."""
    if size <= 0:
        return ""
    holds = _holds_up(size, constraints)
    return f"Not {size - 1}: {_said(holds) if holds else 'the size is kept as it is'}."


def why_not_more(size: int, constraints: Sequence[Constraint]) -> str:
    """Why not one more."""
    caps = _holds_down(constraints)
    if caps is not None:
        return f"Not {size + 1}: {_said(caps)}."
    holds = _holds_up(size, constraints)
    if holds is None:
        return f"Not {size + 1}: nothing asks for it."
    if holds.value is not None and holds.limit is not None and holds.bound in _LOADS:
        room = size * holds.limit - holds.value
        return (
            f"Not {size + 1}: {size} do {size * holds.limit:.2f} replicas' worth of work, "
            f"{max(room, 0.0):.2f} more than is asked for."
        )
    return f"Not {size + 1}: nothing asks for more than {size}; {_said(holds)}."


def _holds_up(size: int, constraints: Sequence[Constraint]) -> Constraint | None:
    """The last constraint that raised the size to at least this; else the first one there is."""
    sizes = [0, *(constraint.size for constraint in constraints)]
    for place in range(len(constraints) - 1, -1, -1):
        constraint = constraints[place]
        if constraint.size >= size and (
            constraint.size > sizes[place] or constraint.bound in _EITHER
        ):
            return constraint
    return constraints[0] if constraints else None


def _holds_down(constraints: Sequence[Constraint]) -> Constraint | None:
    """The last constraint that lowered the size, if nothing raised it after that."""
    sizes = [0, *(constraint.size for constraint in constraints)]
    for place in range(len(constraints) - 1, -1, -1):
        constraint = constraints[place]
        if constraint.bound in _EITHER or constraint.size < sizes[place]:
            return constraint
        if constraint.size > sizes[place]:
            return None
    return None


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
        return (
            f"{what} {of.value or 0:.2f} replicas' worth of work, and one is planned to do "
            f"{of.limit or 0:.2f}"
        )

    return said


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
    known = "for an unknown time" if of.value is None else f"for {of.value:.0f} s"
    return f"it has been idle {known}, and goes to zero after {of.limit or 0:g} s"


def _override(of: Constraint) -> str:
    until = ""
    if of.limit is not None:
        until = f" until {datetime.fromtimestamp(of.limit, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{of.detail}{until}"


def _schedule(of: Constraint) -> str:
    return f"the schedule {of.detail} has a bound of {_replicas(of.limit or 0)}"


def _budget(of: Constraint) -> str:
    return f"budget {of.detail} has {of.limit or 0:g}, and {of.value or 0:g} were wished for"


def _money(of: Constraint) -> str:
    return (
        f"the ceiling of money per {of.detail} leaves {of.limit or 0:.2f} USD an hour, and "
        f"{of.value or 0:.2f} were wished for"
    )


def _rate(of: Constraint) -> str:
    return f"{_replicas(of.value or 0)} are wanted, and the rates allow no more change for now"


_LOADS = (Bound.DEMAND, Bound.FORECAST, Bound.HEADROOM, Bound.HOLD, Bound.QUEUE)
_EITHER = (Bound.OVERRIDE, Bound.FIXED, Bound.SPOT)
"""These hold the size up and down alike."""

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
    Bound.MAX: lambda of: f"the most is {of.limit or 0:g}",
    Bound.ROOM: lambda of: f"there is room for {of.limit or 0:g}",
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
