"""What it costs to decide the sizes of 100 pools at once, as the scaler does every few seconds.

Over the real core, in one thread: half of the pools are sized by demand in work, the others by
signals and rules, all with rates, stabilisation, a schedule, a budget that is short and a ceiling
of money, and each tick gives every reason in words. Demand swings so that sizes change.
"""

import gc
import math
import time
from dataclasses import replace
from random import Random

from bench import report
from services.scaler.policy.sizing.settings import (
    Behavior,
    Budget,
    BudgetShare,
    Capacity,
    Direction,
    Measure,
    Money,
    Rate,
    RateType,
    Resource,
    Rule,
    Scale,
    Schedule,
    Signal,
    Work,
)
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, decide_all
from services.scaler.policy.sizing.views import Reading, Traffic, View

POOLS = 100
TICK_SECONDS = 10.0
START_SECONDS = 60.0
PROMPT, OUTPUT = 1155, 211
MODEL = Capacity(a=6.42e-3, c=4.99e-8, p=1.96e-5)
"""Llama-3.1-8B on an H100."""
MONDAY = 1_800_000_000.0


def run(*, quick: bool) -> None:
    """Measures and prints."""
    ticks = 20 if quick else 400
    policies = {f"pool-{number}": _policy(number) for number in range(POOLS)}
    shares = {name: BudgetShare(priority=number % 3) for number, name in enumerate(policies)}
    limited = {"gpus": Budget(of=Resource.GPUS, limit=2.5 * POOLS, pools=shares)}
    rows = []
    figure = 0.0
    for name, budgets in (("budget that is never short", {}), ("budget that is short", limited)):
        times, changes = _timed(policies, budgets, ticks)
        median = report.median(times)
        rows.append(
            (name, f"{median:.2f}", f"{report.quantile(times, 0.99):.2f}", f"{changes / ticks:.1f}")
        )
        figure = max(figure, median)
    report.table(
        f"Deciding the sizes of {POOLS} pools, {ticks} ticks each",
        ("pools with a", "median ms", "99 % ms", "changes a tick"),
        rows,
        note="Processor time of one thread; every decision with its three reasons in words.",
    )
    report.figure("tick.time_100_pools", figure, "ms")


def _timed(
    policies: dict[str, PoolPolicy], budgets: dict[str, Budget], ticks: int
) -> tuple[list[float], int]:
    """Milliseconds of each tick after a warm-up, and how many sizes changed."""
    random = Random(7)
    money = Money(usd_per_hour=1e6, usd_per_day=1e7)
    memory = AllMemory()
    sizes = dict.fromkeys(policies, 2)
    times = []
    changes = 0
    gc.collect()
    gc.disable()
    for tick in range(ticks + 40):
        views = {
            name: _view(tick, number, sizes[name], random) for number, name in enumerate(policies)
        }
        before = time.thread_time_ns()
        decisions, memory = decide_all(policies, budgets, money, memory, views)
        times.append((time.thread_time_ns() - before) / 1e6)
        changes += sum(one.size != one.before for one in decisions.values()) if tick >= 40 else 0
        sizes = {name: decision.size for name, decision in decisions.items()}
    gc.enable()
    return times[40:], changes


def _policy(number: int) -> PoolPolicy:
    behavior = Behavior(
        scale_up=Direction(policies=(Rate(type=RateType.PODS, value=4, period_seconds=60),)),
        scale_down=Direction(
            stabilization_window_seconds=60,
            policies=(Rate(type=RateType.PERCENT, value=50, period_seconds=60),),
        ),
    )
    scale = Scale(
        max=20,
        behavior=behavior,
        schedule=(Schedule(cron="0 8 * * MON-FRI", duration_seconds=36_000, min=2),),
        work=Work(capacity=MODEL if number % 4 else None),
    )
    if number % 2:
        scale = replace(
            scale,
            work=None,
            signals={Measure.RUNNING: Signal(target=0.7), Measure.WAITING: Signal(target=4.0)},
            rules=(Rule(signal="kv", above=0.8, for_seconds=60.0, change=1),),
        )
    return PoolPolicy(scale)


def _view(tick: int, number: int, size: int, random: Random) -> View:
    now = 1000.0 + tick * TICK_SECONDS
    rate = 40 + 30 * math.sin(tick / 30 + number)
    count = random.gauss(rate * TICK_SECONDS, math.sqrt(rate * TICK_SECONDS))
    running = min(rate * 5.0, 64.0 * max(size, 1))
    traffic = Traffic(
        seconds=TICK_SECONDS,
        arrivals=count,
        prompt_tokens=count * PROMPT,
        finished=count,
        output_tokens=count * OUTPUT,
        first_texts=count,
        late=count * 0.002,
        at=now,
    )
    return View(
        now=now,
        wall=MONDAY + now,
        ready=size,
        starting=0,
        places=64,
        start_seconds=START_SECONDS,
        traffic=traffic,
        waiting=max(rate * 5.0 - running, 0.0),
        running=running,
        readings={
            Measure.RUNNING: Reading(running / (64.0 * max(size, 1)), now),
            Measure.WAITING: Reading(random.uniform(0, 6), now),
            Measure.KV: Reading(random.uniform(0.3, 0.9), now),
        },
        fits=20,
        usd_per_hour=2.5,
        idle_seconds=0.0,
    )
