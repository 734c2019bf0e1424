"""What is known of pools at one tick: the core's views, from all who say something of them.

Routers say what tiers are asked for; several pools of one tier share that by the capacity of their
ready replicas, as routers spread requests over places. Engines say what waits in them and how full
their KV caches are, a Prometheus answers queries. Decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.common.buckets import longer_than
from services.common.load_totals import LoadTotals
from services.scaler.load.engines import EngineReading, Engines
from services.scaler.load.loads import Loads
from services.scaler.load.queries import Queries
from services.scaler.policy.demand import Demand
from services.scaler.policy.sizing.settings import Measure, Objectives
from services.scaler.policy.sizing.views import Reading, Traffic, View
from services.scaler.pools.pool import Pool

SLOW_FRACTION = 0.95


@dataclass(frozen=True)
class PoolNow:
    """A pool as the fleet has it at a tick.

    Attributes:
        name: its name.
        pool: the settings it goes by.
        ready: ids of its replicas that take requests.
        starting: replicas on their way.
        leaving: replicas that run beside these, and are to go.
        fits: most replicas that there is room for; None: not known.
        start_seconds: how long a start takes.
        woken: somebody asked for it while it had no replica.
    """

    name: str
    pool: Pool
    ready: tuple[str, ...] = ()
    starting: int = 0
    fits: int | None = None
    start_seconds: float = 60.0
    woken: bool = False
    leaving: int = 0

    @property
    def places(self) -> int:
        """Of its ready replicas together."""
        return len(self.ready) * self.pool.max_in_flight


@dataclass(frozen=True)
class _Since:
    """Where counters stood when they were read last."""

    at: float
    counted: Mapping[str, LoadTotals] = field(default_factory=dict)


class Signals:
    """Makes the views; remembers from one tick to the next where counters stood."""

    def __init__(self, loads: Loads, engines: Engines, queries: Queries) -> None:
        """Nothing was read yet."""
        self._loads = loads
        self._engines = engines
        self._queries = queries
        self._since: _Since | None = None

    def views(self, pools: Sequence[PoolNow], *, now: float, wall: float) -> dict[str, View]:
        """The views of all pools at a tick; what came since the last one is told once.

        Args:
            pools: all there are.
            now: monotonic seconds.
            wall: the same in seconds since 1970.
        """
        since = self._since
        growth: dict[str, LoadTotals] | None = None
        if self._loads.counting(now):
            counted = self._loads.counted()
            if since is not None and now > since.at:
                growth = {
                    tier: total + -since.counted.get(tier, LoadTotals())
                    for tier, total in counted.items()
                }
            self._since = _Since(now, counted)
        shares = _shares(pools)
        return {
            one.name: self._view(one, shares[one.name], since, growth, now=now, wall=wall)
            for one in pools
        }

    def troubles(self, pool: str, settings: Pool, now: float) -> list[str]:
        """What keeps signals of a pool from being known, a sentence each."""
        scale = settings.scale
        if scale is None:
            return []
        silent = sorted(self._loads.silent(now))
        said = [f"router {silent[0]} fell silent"] if len(silent) == 1 else []
        said += [f"{len(silent)} routers fell silent"] if len(silent) > 1 else []
        if silent:
            said[0] += ": the pool does not shrink while it is not known what they have"
        for name in scale.queries:
            if why := self._queries.wrong(pool, name):
                said.append(f"query {name} has no answer: {why}")
        return said

    def _view(
        self,
        one: PoolNow,
        share: float,
        since: _Since | None,
        growth: Mapping[str, LoadTotals] | None,
        *,
        now: float,
        wall: float,
    ) -> View:
        loads, tier = self._loads, one.pool.tier
        scale = one.pool.scale
        objectives = Objectives() if scale is None else scale.objectives
        traffic = waiting = running = None
        known = loads.known_until(now)
        if growth is not None and since is not None and known is not None:
            grown = growth.get(tier, LoadTotals())
            traffic = _traffic(grown, share, objectives, now - since.at, known)
        engines = self._engine_readings(one)
        if loads.routers(now):
            inside = sum(found.waiting or 0.0 for found in engines)
            placed = float(sum(loads.running_on(name, now) for name in one.ready))
            inside = min(inside, placed)
            waiting = loads.tier(tier, now).waiting * share + inside
            running = placed - inside
        return View(
            now=now,
            wall=wall,
            ready=len(one.ready),
            starting=one.starting,
            places=one.pool.max_in_flight,
            start_seconds=one.start_seconds,
            traffic=traffic,
            waiting=waiting,
            running=running,
            readings={
                **self._measured(one, share, waiting, running, known=known, now=now),
                **_filled(engines),
                **self._queried(one),
            },
            fits=one.fits,
            usd_per_hour=one.pool.usd_per_hour,
            woken=one.woken,
            idle_seconds=loads.idle_seconds(tier, now),
            leaving=one.leaving,
        )

    def _engine_readings(self, one: PoolNow) -> list[EngineReading]:
        found = (self._engines.reading(name) for name in one.ready)
        return [reading for reading in found if reading is not None and reading.known]

    def _measured(
        self,
        one: PoolNow,
        share: float,
        waiting: float | None,
        running: float | None,
        *,
        known: float | None,
        now: float,
    ) -> dict[Measure | str, Reading]:
        """What routers say, as measures; what nobody says is left out."""
        if known is None or waiting is None or running is None:
            return {}
        demand = self._loads.demand(one.pool.tier, now)
        replicas = max(len(one.ready), 1)
        values: dict[Measure, float | None] = {Measure.WAITING: waiting / replicas}
        if one.places:
            values[Measure.RUNNING] = running / one.places
        if demand is not None:
            values[Measure.QUEUED_TOKENS] = waiting * _mean_prompt(demand) / replicas
            values[Measure.TTFT_SECONDS] = demand.first_text_seconds(SLOW_FRACTION)
            values[Measure.ITL_SECONDS] = demand.between_tokens_seconds(SLOW_FRACTION)
            tokens = demand.prompt_tokens_per_second + demand.output_tokens_per_second
            values[Measure.TOKENS_PER_SECOND] = tokens * share / replicas
        return {
            measure: Reading(value, known) for measure, value in values.items() if value is not None
        }

    def _queried(self, one: PoolNow) -> dict[Measure | str, Reading]:
        if one.pool.scale is None:
            return {}
        found = {
            name: self._queries.reading(one.name, name, query.query)
            for name, query in one.pool.scale.queries.items()
        }
        return {name: reading for name, reading in found.items() if reading is not None}


def _traffic(
    grown: LoadTotals, share: float, held_to: Objectives, seconds: float, known: float
) -> Traffic:
    late = longer_than(grown.first_text, held_to.ttft_seconds)
    if held_to.itl_seconds is not None:  # an answer may be both: the greater count is sure
        late = max(late, longer_than(grown.between_tokens, held_to.itl_seconds))
    return Traffic(
        seconds=seconds,
        arrivals=grown.arrivals * share,
        prompt_tokens=grown.prompt_tokens * share,
        finished=grown.finished * share,
        output_tokens=grown.output_tokens * share,
        first_texts=sum(grown.first_text) * share,
        late=late * share,
        at=known,
    )


def _filled(engines: Sequence[EngineReading]) -> dict[Measure | str, Reading]:
    """The KV caches of a pool's engines, as old as the oldest that is known of one."""
    filled = [(reading.kv, reading.at) for reading in engines if reading.kv is not None]
    if not filled:
        return {}
    mean = sum(kv for kv, _ in filled) / len(filled)
    return {Measure.KV: Reading(mean, min(at for _, at in filled))}


def _mean_prompt(demand: Demand) -> float:
    """Tokens of a prompt that came lately."""
    arrivals = demand.counted.arrivals
    return demand.counted.prompt_tokens / arrivals if arrivals else 0.0


def _shares(pools: Sequence[PoolNow]) -> dict[str, float]:
    """Each pool's part of what its tier is asked for.

    Where no pool of a tier has a replica it is that of the cheapest that can have one.
    """
    places: dict[str, int] = {}
    for one in pools:
        places[one.pool.tier] = places.get(one.pool.tier, 0) + one.places
    shares = {
        one.name: one.places / places[one.pool.tier] if places[one.pool.tier] else 0.0
        for one in pools
    }
    for tier, total in places.items():
        able = [one for one in pools if one.pool.tier == tier and _can_start(one)]
        if not total and able:
            first = min(able, key=lambda one: (one.pool.usd_per_hour, one.name))
            shares[first.name] = 1.0
    return shares


def _can_start(one: PoolNow) -> bool:
    return one.fits != 0 and (one.pool.scale is not None or one.pool.first > 0)
