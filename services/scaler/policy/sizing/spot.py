"""How many replicas of a size run on spot capacity and how many on demand.

Pure. SpotHedge's mix for one scale (Mao et al., EuroSys 2025, its artefact's rule): spot is always
asked for its part and some more; what of that does not serve is made up for on demand; a safety net
stays on demand while spot was not available for long enough so far; and after spot is full again
the last count on demand is kept for one more start. A spot replica counts as serving once it has
done so for as long as a start takes.
"""

import math
from dataclasses import dataclass, replace

from services.scaler.policy.sizing import windows
from services.scaler.policy.sizing.settings import Spot
from services.scaler.policy.sizing.views import Reading, Traffic, View

AVAILABLE = 0.99
"""Of the time; while spot had its part for less, the safety net stays."""
HALF_LIFE_SECONDS = 86_400.0
GAP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class MixMemory:
    """What the mix is told from.

    Attributes:
        on_demand: replicas that are wanted on demand.
        backed: of these, those that made up for spot when it last was short.
        ready: fewest that spot had ready lately.
        parts: smallest part of spot lately.
        full_since: since when spot is full; None: it is not.
        available, seen: seconds in which spot had its part, and all; decayed.
        now: time of the last tick; None: there was none.
    """

    on_demand: int = 0
    backed: int = 0
    ready: windows.Seen = ()
    parts: windows.Seen = ()
    full_since: float | None = None
    available: float = 0.0
    seen: float = 0.0
    now: float | None = None


@dataclass(frozen=True, slots=True)
class Mix:
    """What is to run where.

    Attributes:
        spot: replicas on spot.
        on_demand: replicas on demand.
        serving: spot replicas that count as serving.
        availability: share of the time in which spot had its part; None: not known yet.
    """

    spot: int
    on_demand: int
    serving: int
    availability: float | None


def mixed(
    spot: Spot,
    before: MixMemory,
    *,
    target: int,
    ready: int,
    now: float,
    start_seconds: float,
) -> tuple[Mix, MixMemory]:
    """Splits a size.

    Args:
        spot: the policy's.
        before: what was known.
        target: replicas that are to serve, of both kinds.
        ready: spot replicas that serve now.
        now: time of the tick.
        start_seconds: how long a start takes.
    """
    memory = before
    if before.now is None or not 0 < now - before.now <= GAP_SECONDS:
        memory = replace(before, ready=(), parts=(), full_since=None, now=now)
    part = max(min(math.ceil(target * spot.share - 1e-9), target - spot.min_on_demand), 0)
    goal = part + spot.over_provision if part else 0
    fewest = windows.with_least(memory.ready, now, ready, now - start_seconds)
    parts = windows.with_least(memory.parts, now, part, now - start_seconds)
    available, seen = _availability(memory, now, had=ready >= parts[0][1])
    availability = available / seen if seen > 0 else None
    serving = min(int(fewest[0][1]), goal)
    base = target - part
    backed, full_since = min(part, goal - serving), None
    if serving >= goal:
        full_since = now if memory.full_since is None else memory.full_since
        kept = now - full_since < start_seconds
        backed = min(memory.backed, part) if kept else 0
    on_demand = base + backed
    if target and availability is not None and availability <= AVAILABLE:
        on_demand = max(on_demand, min(max(spot.min_on_demand, 1), target))
    after = MixMemory(
        on_demand, backed, fewest, parts, full_since, available=available, seen=seen, now=now
    )
    return Mix(goal, on_demand, serving, availability), after


def together(on_demand: View, spot: View) -> View:
    """Both pools of a tier as one."""
    readings = {**spot.readings, **on_demand.readings}
    for name in spot.readings.keys() & on_demand.readings.keys():
        readings[name] = _mean(
            on_demand.readings[name], on_demand.ready, spot.readings[name], spot.ready
        )
    fits = None
    if on_demand.fits is not None and spot.fits is not None:
        fits = on_demand.fits + spot.fits
    idle = None
    if on_demand.idle_seconds is not None and spot.idle_seconds is not None:
        idle = min(on_demand.idle_seconds, spot.idle_seconds)
    return replace(
        on_demand,
        ready=on_demand.ready + spot.ready,
        starting=on_demand.starting + spot.starting,
        start_seconds=max(on_demand.start_seconds, spot.start_seconds),
        traffic=_sum(on_demand.traffic, spot.traffic),
        waiting=_both(on_demand.waiting, spot.waiting),
        running=_both(on_demand.running, spot.running),
        readings=readings,
        fits=fits,
        woken=on_demand.woken or spot.woken,
        idle_seconds=idle,
        leaving=on_demand.leaving + spot.leaving,
    )


def _availability(before: MixMemory, now: float, *, had: bool) -> tuple[float, float]:
    gone = 0.0 if before.now is None else now - before.now
    kept = 0.5 ** (gone / HALF_LIFE_SECONDS)
    return kept * before.available + (gone if had else 0.0), kept * before.seen + gone


def _both(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _sum(first: Traffic | None, second: Traffic | None) -> Traffic | None:
    if first is None or second is None:
        return None
    return Traffic(
        seconds=max(first.seconds, second.seconds),
        arrivals=first.arrivals + second.arrivals,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        finished=first.finished + second.finished,
        output_tokens=first.output_tokens + second.output_tokens,
        first_texts=first.first_texts + second.first_texts,
        late=first.late + second.late,
        at=min(first.at, second.at),
    )


def _mean(first: Reading, weight: int, second: Reading, other: int) -> Reading:
    """By ready replicas; of a pool that has none ready the reading does not count."""
    if weight + other == 0:
        return first
    value = (first.value * weight if weight else 0.0) + (second.value * other if other else 0.0)
    return Reading(value / (weight + other), min(first.at, second.at))
