"""The way from what is measured to the size that one pool wishes, constraint by constraint.

Pure. The order, in which each step sees the size that the one before left:

1. the largest of what demand, signals and rules ask for; demand within its tolerance and `spare`;
2. never down where something is not known;
3. stabilisation, as HPA has it;
4. what waits, and a burst, which no window holds back;
5. rates;
6. to zero or at least one;
7. bounds of the schedule, else `min` and `max`;
8. an override;
9. `max` again, and the room there is.

What pools share, budgets and money, comes after: `size` puts it on top.
"""

from dataclasses import dataclass, field, replace

from services.scaler.policy.sizing import limits, schedule
from services.scaler.policy.sizing.burst import burst_until
from services.scaler.policy.sizing.memory import SizeMemory
from services.scaler.policy.sizing.override import Override, OverrideKind, in_force, overridden
from services.scaler.policy.sizing.rules import Step, stepped
from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.signals import asked_by
from services.scaler.policy.sizing.views import Bound, Constraint, View
from services.scaler.policy.sizing.work import Demand, demanded
from services.scaler.policy.sizing.zero import Floor, floor

JUMP_SECONDS = 300.0
"""A tick that comes later than this after the last one finds the windows useless."""
FIRST_TICK_SECONDS = 10.0


@dataclass(slots=True)
class Path:
    """The size so far, and what bound it."""

    size: int = 0
    constraints: list[Constraint] = field(default_factory=list)

    def take(
        self,
        bound: Bound,
        size: int,
        detail: str = "",
        *,
        value: float | None = None,
        limit: float | None = None,
    ) -> None:
        """The size is now this, if it was another; then the bound is kept."""
        if size != self.size:
            self.size = size
            self.constraints.append(Constraint(bound, size, detail, value, limit))


@dataclass(frozen=True, slots=True)
class Wish:
    """What one pool would have.

    Attributes:
        size: replicas.
        least: of these, those it gets before other pools get more.
        constraints: what bound it.
        demand: what is asked of it; None: not known.
    """

    size: int
    least: int
    constraints: tuple[Constraint, ...] = ()
    demand: Demand | None = None


def wished(
    scale: Scale, before: SizeMemory, view: View, override: Override | None
) -> tuple[Wish, SizeMemory]:
    """What the pool would have by itself, and its memory; the size in that is still the old one."""
    current = before.size
    if before.now is not None and view.now == before.now:
        held = Constraint(Bound.STALE, current, "no time has passed")
        return Wish(current, min(current, scale.min), (held,)), before
    memory = before
    tick = FIRST_TICK_SECONDS if view.traffic is None else view.traffic.seconds
    if before.now is not None and 0 < view.now - before.now <= JUMP_SECONDS:
        tick = view.now - before.now
    else:
        memory = before.restarted()
    tick = min(tick, JUMP_SECONDS)  # of traffic that is not sound nothing is taken
    path = Path()
    least = floor(scale, view, current)
    resting = least.idle and least.size == 0
    demand: Demand | None = None
    work = memory.work
    if scale.work is not None:
        demand, work = demanded(scale, scale.work, memory.work, view, tick)
    missing = _asked(path, scale, view, current, demand, resting=resting)
    steps, rules = stepped(scale, memory.rules, view, current)
    _stepped(path, scale, steps, current)
    if missing and path.size < current:
        path.take(Bound.STALE, current, ", ".join(missing))
    calm = path.size
    size, past = limits.stabilized(
        scale.behavior, memory.past, view.now, wanted=path.size, current=current
    )
    if resting and calm == 0 and size <= 1:
        size = 0
    direction = scale.behavior.scale_up if size < calm else scale.behavior.scale_down
    window = direction.stabilization_window_seconds
    path.take(Bound.STABILIZATION, size, value=calm, limit=window)
    burst = _urgent(path, scale, view, demand, memory)
    wanted = path.size
    size = limits.limited(scale.behavior, past, view.now, wanted=wanted, current=current)
    path.take(Bound.RATE, size, value=wanted)
    times = (
        schedule.times(memory.times, scale.schedule, view.wall)
        if scale.schedule
        else (memory.times)
    )
    _floored(path, scale, view, least, current)
    lower, most = _bounded(path, scale, times)
    given = in_force(override, view.wall)
    if given is not None:
        path.size, constraint = overridden(given, wanted=path.size, current=current)
        path.constraints.append(constraint)
        most = max(most, scale.max)
        path.take(Bound.MAX, min(path.size, most), value=path.size, limit=most)
        if given.kind is not OverrideKind.NO_SCALE_DOWN:
            lower = path.size
    if view.fits is not None:
        size = min(path.size, max(view.fits, 0))
        path.take(Bound.ROOM, size, value=path.size, limit=view.fits)
    wish = Wish(
        size=path.size,
        least=min(path.size, max(lower, least.size)),
        constraints=tuple(path.constraints),
        demand=demand,
    )
    return wish, SizeMemory(memory.size, view.now, work, past, rules, burst, times)


def _asked(
    path: Path, scale: Scale, view: View, current: int, demand: Demand | None, *, resting: bool
) -> list[str]:
    """What demand and signals ask for; names what is not known."""
    missing = []
    if demand is not None:
        if not resting:
            _demand(path, scale, demand, current)
        if demand.missing:
            missing.append(demand.missing)
    elif scale.work is not None:
        missing.append("demand")
    for asked in asked_by(scale, view, current):
        if asked.size is None:
            missing.append(asked.name)
        elif asked.size > path.size:
            bound = Bound.SIGNAL if not asked.held else Bound.TOLERANCE
            path.take(bound, asked.size, asked.name, value=asked.value, limit=asked.target)
    return missing


def _demand(path: Path, scale: Scale, demand: Demand, current: int) -> None:
    """What demand asks for, but for what waits; it comes first on the path."""
    limit = demand.usable
    size = demand.replicas(demand.rate)
    path.size = size
    detail = "" if demand.learned else "places"
    path.constraints.append(Constraint(Bound.DEMAND, size, detail, demand.rate, limit))
    for bound, load in (
        (Bound.FORECAST, demand.expected),
        (Bound.HEADROOM, demand.headroom),
        (Bound.HOLD, demand.held),
    ):
        path.take(bound, max(path.size, demand.replicas(load)), value=load, limit=limit)
    if current and path.size != current:
        ratio = demand.held / (limit * current)
        if limits.tolerated(scale.behavior, ratio):
            up = path.size > current
            direction = scale.behavior.scale_up if up else scale.behavior.scale_down
            path.take(Bound.TOLERANCE, current, value=ratio, limit=direction.tolerance)
    spare = scale.work.spare if scale.work is not None else 0.0
    if spare and path.size < current:
        safe = demand.replicas(demand.held / max(1.0 - spare, 1e-6))
        kept = max(path.size, min(current, safe))
        path.take(Bound.SPARE, kept, value=demand.held, limit=spare)


def _stepped(path: Path, scale: Scale, steps: list[Step], current: int) -> None:
    """What rules ask for; by themselves, they change the size that there is."""
    alone = scale.work is None and not scale.signals and not scale.queries
    if alone:
        down = [step for step in steps if step.rule.change < 0]
        path.size = min((step.size for step in down), default=current)
        if not down:
            path.constraints.append(Constraint(Bound.RULE, current, "none"))
        for step in down[:1]:
            path.constraints.append(_constraint(step, path.size))
    for step in steps:
        if step.rule.change > 0 and step.size > path.size:
            bound = Bound.STARTING if step.late else Bound.RULE
            path.size = step.size
            path.constraints.append(replace(_constraint(step, step.size), bound=bound))


def _constraint(step: Step, size: int) -> Constraint:
    rule = step.rule
    way, limit = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    return Constraint(Bound.RULE, size, f"{rule.signal} {way} {limit:g}", step.value, limit)


def _urgent(
    path: Path,
    scale: Scale,
    view: View,
    demand: Demand | None,
    before: SizeMemory,
) -> float | None:
    """What waits, and a burst; until when that lasts."""
    if demand is not None and demand.queue > 0:
        load = max(demand.held, demand.rate) + demand.queue
        size = max(path.size, demand.replicas(load))
        path.take(Bound.QUEUE, size, value=load, limit=demand.usable)
    if scale.burst is None:
        return None
    if demand is not None and demand.short is not None:
        asked, doable = demand.short / demand.usable, float(view.ready)
    else:
        asked, doable = _crowd(view), float(view.ready)
    until = burst_until(scale.burst, before.burst, view.now, demand=asked, doable=doable)
    if until is not None:
        short = 0 if demand is None or demand.short is None else demand.replicas(demand.short)
        size = max(path.size, before.size, short)
        path.take(Bound.BURST, size, value=asked, limit=scale.burst.threshold)
    return until


def _crowd(view: View) -> float:
    """Requests running and waiting, in replicas that are full with them."""
    known = [count for count in (view.running, view.waiting) if count is not None and count > 0]
    return min(sum(known), 1e9) / max(view.places, 1)


def _floored(path: Path, scale: Scale, view: View, least: Floor, current: int) -> None:
    """At least one, or none at all."""
    if path.size == 0 and least.size:
        if least.woken:
            path.take(Bound.WOKEN, 1)
        elif scale.zero is None:
            path.take(Bound.MIN, 1, "at least one", limit=1)
        else:
            path.take(Bound.IDLE, 1, value=view.idle_seconds, limit=scale.zero.idle_seconds)
    elif path.size == 0 and scale.zero is not None:
        # At zero already, its idle time says nothing: a budget may have taken the last replica.
        detail = "at zero" if current == 0 else ""
        path.constraints.append(
            Constraint(Bound.IDLE, 0, detail, view.idle_seconds, scale.zero.idle_seconds)
        )


def _bounded(path: Path, scale: Scale, times: schedule.Times) -> tuple[int, int]:
    """Within the schedule's bounds, else the pool's; both come back."""
    by_time = schedule.bounds(times) if times.active and scale.schedule else schedule.Bounds()
    least = scale.min if by_time.least is None else by_time.least
    most = scale.max if by_time.most is None else by_time.most
    least = min(least, most)
    by = Bound.MIN if by_time.least is None else Bound.SCHEDULE
    path.take(by, max(path.size, least), by_time.least_by, limit=least)
    by = Bound.MAX if by_time.most is None else Bound.SCHEDULE
    path.take(by, min(path.size, most), by_time.most_by, value=path.size, limit=most)
    return least, most
