"""What others do, each with its own knobs, for many pools at once.

Rules are those of Kubernetes' HPA v2 (podautoscaler), Knative's KPA, llm-d's Workload Variant
Autoscaler (saturation) and NVIDIA Dynamo's SLA planner, with their intervals. All see the demand in
work, as ours does. Knobs are arrays with a value for each lane; `KNOBS` says within which bounds
they are searched, and which of them are searched in logarithms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from services.scaler.simulator.fluid import Moment
from services.scaler.simulator.lanes import Counts, LaneSizer, Seen
from services.scaler.simulator.silicon import Floats, Serving

Knobs = Mapping[str, Floats]


@dataclass(frozen=True)
class Bounds:
    """Where a knob is searched.

    Attributes:
        low, high: bounds.
        logarithmic: equal ratios are equal steps.
        whole: only whole numbers.
    """

    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Family:
    """A baseline.

    Attributes:
        title: for tables.
        knobs: its own, with bounds.
        make: from knobs and what a replica is.
    """

    title: str
    knobs: Mapping[str, Bounds]
    make: Callable[[Knobs, Serving], LaneSizer]


class _Window:
    """Values of the last ticks, and the extremes and means of as many of them as each lane asks."""

    def __init__(self, seconds: Floats, tick: float) -> None:
        self.ticks = np.maximum(1, np.round(seconds / tick)).astype(int)
        self.values = np.full((int(self.ticks.max()), len(seconds)), np.nan)
        self.at = 0

    def add(self, values: Floats) -> None:
        self.values[self.at % len(self.values)] = values
        self.at += 1

    def _masked(self) -> Floats:
        age = (self.at - 1 - np.arange(len(self.values))) % len(self.values)
        return np.where(age[:, None] < self.ticks, self.values, np.nan)

    def max(self) -> Floats:
        return np.asarray(np.fmax.reduce(self._masked(), axis=0))

    def min(self) -> Floats:
        return np.asarray(np.fmin.reduce(self._masked(), axis=0))


class _Mean:
    """Means over the last ticks, as many as each lane asks; a running sum keeps them cheap."""

    def __init__(self, seconds: Floats, tick: float) -> None:
        self.ticks = np.maximum(1, np.round(seconds / tick)).astype(int)
        self.sums = np.zeros((int(self.ticks.max()) + 1, len(seconds)))
        self.lanes = np.arange(len(seconds))
        self.at = 0

    def add(self, values: Floats) -> Floats:
        size = len(self.sums)
        last = self.sums[self.at % size]
        self.at += 1
        total = last + values
        self.sums[self.at % size] = total
        ticks = np.minimum(self.ticks, self.at)
        return np.asarray((total - self.sums[(self.at - ticks) % size, self.lanes]) / ticks)


class Static:
    """As many replicas as were set."""

    tick = 60.0

    def __init__(self, knobs: Knobs, _: Serving) -> None:
        self.count = knobs["replicas"].astype(int)

    def sizes(self, _: Seen) -> Counts:
        """The set number."""
        return self.count


class Hpa:
    """HPA v2 on one external metric with an average target, as KEDA feeds it.

    The metric is requests in the pool (``on_load``) or requests a second. Behaviour: tolerance,
    stabilisation in both directions, rates up (pods or percent, the greater) and down (percent).
    """

    tick = 15.0

    def __init__(self, knobs: Knobs, _: Serving, *, on_load: bool) -> None:
        self.on_load = on_load
        self.target, self.tolerance = knobs["target"], knobs["tolerance"]
        self.up_pods, self.down_percent = knobs["up_pods"], knobs["down_percent"]
        self.metric = _Mean(knobs["metric_seconds"], self.tick)
        self.down = _Window(knobs["down_seconds"] + self.tick, self.tick)

    def sizes(self, seen: Seen) -> Counts:
        """One turn of the controller."""
        current = (seen.ready + seen.starting).astype(float)
        value = self.metric.add(seen.load if self.on_load else seen.work / seen.seconds)
        ratio = value / (self.target * np.maximum(current, 1.0))
        raw = np.where(np.abs(ratio - 1.0) <= self.tolerance, current, np.ceil(value / self.target))
        self.down.add(raw)
        wanted = np.where(raw < current, np.minimum(current, self.down.max()), raw)
        most = np.maximum(current + self.up_pods, np.ceil(current * 2.0))
        least = np.floor(current * (1.0 - self.down_percent))
        return _counts(np.clip(wanted, least, most))


class Kpa:
    """Knative's autoscaler on concurrency, with its panic mode and scale-down delay."""

    tick = 2.0

    def __init__(self, knobs: Knobs, _: Serving) -> None:
        self.target, self.threshold = knobs["target"], knobs["panic_threshold"]
        self.stable_seconds = knobs["stable_seconds"]
        self.stable = _Mean(knobs["stable_seconds"], self.tick)
        self.panic = _Mean(knobs["panic_seconds"], self.tick)
        self.delay = _Slots(knobs["delay_seconds"])
        self.until = np.full(len(self.target), -np.inf)
        self.most = np.zeros(len(self.target))

    def sizes(self, seen: Seen) -> Counts:
        """One turn of the autoscaler."""
        ready = np.maximum(seen.ready, 1).astype(float)
        down = np.floor(ready / 2.0)
        stable = np.maximum(np.ceil(self.stable.add(seen.load) / self.target), down)
        panic = np.maximum(np.ceil(self.panic.add(seen.load) / self.target), down)
        over = panic / ready >= self.threshold
        self.until = np.where(over, seen.now + self.stable_seconds, self.until)
        panics = seen.now < self.until
        self.most = np.where(panics, np.maximum(self.most, np.maximum(stable, panic)), 0.0)
        wanted = np.where(panics, self.most, stable)
        return _counts(self.delay.highest(seen.now, wanted))


class _Slots:
    """The highest value of the last while, kept in a few slots of time for each lane."""

    COUNT = 8

    def __init__(self, seconds: Floats) -> None:
        self.length = np.maximum(seconds / self.COUNT, 1e-9)
        self.off = seconds < Kpa.tick
        self.values = np.zeros((self.COUNT + 1, len(seconds)))
        self.slot = np.zeros(len(seconds), int)
        self.lanes = np.arange(len(seconds))

    def highest(self, now: float, value: Floats) -> Floats:
        slot = (now / self.length).astype(int)
        new = slot > self.slot
        if new.any():
            # A tick may be longer than a slot: those that were jumped over are empty.
            ahead = np.minimum(slot - self.slot, len(self.values))
            for back in range(int(ahead.max())):
                lanes = self.lanes[back < ahead]
                self.values[(slot[lanes] - back) % len(self.values), lanes] = 0.0
            self.slot = slot
        at = slot % len(self.values)
        self.values[at, self.lanes] = np.maximum(self.values[at, self.lanes], value)
        return np.where(self.off, value, self.values.max(axis=0))


class Wva:
    """llm-d's saturation analyser.

    One replica more where too little is spare, one fewer where enough would stay; nothing while a
    replica starts. Use of the KV cache is running requests by places; peaks of the last minute
    count.
    """

    tick = 15.0

    def __init__(self, knobs: Knobs, serving: Serving) -> None:
        self.places = serving.places
        self.kv, self.queue = knobs["kv"], knobs["queue"]
        self.spare_kv, self.spare_queue = knobs["spare_kv"], knobs["spare_queue"]
        self.used = _Window(knobs["peak_seconds"], self.tick)
        self.queued = _Window(knobs["peak_seconds"], self.tick)

    def sizes(self, seen: Seen) -> Counts:
        """One turn of the optimiser."""
        current = seen.ready + seen.starting
        ready = np.maximum(seen.ready, 1)
        self.used.add(seen.running)
        self.queued.add(seen.waiting)
        used, queued = self.used.max() / ready / self.places, self.queued.max() / ready
        up = (self.kv - used < self.spare_kv) | (self.queue - queued < self.spare_queue)
        fewer = np.maximum(ready - 1, 1)
        fits = (self.kv - used * ready / fewer >= self.spare_kv) & (
            self.queue - queued * ready / fewer >= self.spare_queue
        )
        settled = seen.starting == 0
        change = np.where(up & settled, 1, np.where(fits & ~up & settled & (ready > 1), -1, 0))
        return _counts(current + change)


class Dynamo:
    """Dynamo's SLA planner.

    A size from the interval's demand and the profiled throughput, and above it, every 5 s, one more
    where the estimated wait breaks the objective, one fewer where the load would fit. The demand of
    the next interval is that of the last one (its constant predictor).
    """

    tick = 5.0

    def __init__(self, knobs: Knobs, serving: Serving) -> None:
        self.throughput = serving.throughput * knobs["utilization"]
        self.full = serving.throughput
        self.places = serving.places
        self.interval = np.maximum(1, np.round(knobs["interval_seconds"] / self.tick)).astype(int)
        self.wait, self.sensitivity = knobs["wait_seconds"], knobs["sensitivity"]
        self.rate = _Mean(knobs["interval_seconds"], self.tick)
        self.floor = np.ones(len(self.throughput))
        self.ticks = 0

    def sizes(self, seen: Seen) -> Counts:
        """One turn of both loops."""
        rate = self.rate.add(seen.work / seen.seconds)
        self.ticks += 1
        due = self.ticks % self.interval == 0
        first = self.ticks == 1
        self.floor = np.where(due | first, np.ceil(rate / self.throughput), self.floor)
        current = (seen.ready + seen.starting).astype(float)
        ready = np.maximum(seen.ready, 1).astype(float)
        late = seen.waiting / (ready * self.full) > self.wait
        fewer = np.maximum(ready - 1.0, 1.0)
        fits = (seen.waiting + seen.running) / fewer < self.places * self.sensitivity
        settled = seen.starting == 0
        step = np.where(late & settled, 1.0, np.where(fits & ~late & settled, -1.0, 0.0))
        return _counts(np.maximum(self.floor, current + step))


def _counts(wanted: Floats | Counts) -> Counts:
    return np.maximum(1, wanted).astype(int)


def _hpa(on_load: bool) -> Callable[[Knobs, Serving], LaneSizer]:  # noqa: FBT001
    return lambda knobs, serving: Hpa(knobs, serving, on_load=on_load)


def families(serving: Serving) -> dict[str, Family]:
    """Every baseline, with bounds that fit what a replica is."""
    full, places = serving.throughput, float(serving.places)
    behaviour = {
        "tolerance": Bounds(0.0, 0.1),
        "metric_seconds": Bounds(15.0, 120.0, logarithmic=True),
        "down_seconds": Bounds(1.0, 300.0, logarithmic=True),
        "up_pods": Bounds(1.0, 16.0, whole=True),
        "down_percent": Bounds(0.05, 1.0, logarithmic=True),
    }
    target = Bounds(0.05 * places, 1.2 * places, logarithmic=True)
    return {
        "static": Family(
            "static peak", {"replicas": Bounds(1.0, 64.0, logarithmic=True, whole=True)}, Static
        ),
        "hpa_load": Family(
            "HPA, requests in the pool", {"target": target, **behaviour}, _hpa(on_load=True)
        ),
        "hpa_rate": Family(
            "HPA, requests a second",
            {"target": Bounds(0.5 * full, 1.1 * full), **behaviour},
            _hpa(on_load=False),
        ),
        "kpa": Family(
            "KPA",
            {
                "target": target,
                "stable_seconds": Bounds(10.0, 180.0, logarithmic=True),
                "panic_seconds": Bounds(2.0, 30.0, logarithmic=True),
                "panic_threshold": Bounds(1.1, 3.0),
                "delay_seconds": Bounds(1.0, 600.0, logarithmic=True),
            },
            Kpa,
        ),
        "wva": Family(
            "WVA",
            {
                "kv": Bounds(0.4, 1.0),
                "queue": Bounds(1.0, 30.0, logarithmic=True),
                "spare_kv": Bounds(0.02, 0.5),
                "spare_queue": Bounds(0.5, 10.0, logarithmic=True),
                "peak_seconds": Bounds(15.0, 120.0, logarithmic=True),
            },
            Wva,
        ),
        "dynamo": Family(
            "Dynamo's SLA formula",
            {
                "utilization": Bounds(0.5, 1.1),
                "interval_seconds": Bounds(10.0, 180.0, logarithmic=True),
                "wait_seconds": Bounds(0.05, 5.0, logarithmic=True),
                "sensitivity": Bounds(0.2, 1.0),
            },
            Dynamo,
        ),
    }


class Alone:
    """A baseline for one pool."""

    def __init__(self, family: Family, knobs: Mapping[str, float], serving: Serving) -> None:
        made = {name: np.array([float(knobs[name])]) for name in family.knobs}
        self._sizer = family.make(made, serving)

    @property
    def tick(self) -> float:
        """Seconds between two decisions."""
        return self._sizer.tick

    def size(self, moment: Moment) -> int:
        """Replicas wanted."""
        one = np.array
        seen = Seen(
            now=moment.now, seconds=moment.seconds,
            ready=one([moment.ready]), starting=one([moment.starting]),
            waiting=one([moment.waiting]), running=one([moment.running]),
            load=one([moment.load]), work=one([moment.work]),
        )  # fmt: skip
        return int(self._sizer.sizes(seen)[0])
