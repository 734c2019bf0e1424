"""Demand in work: rates, headroom, what waits, what is held, what is not known."""

import math
from dataclasses import replace

import pytest

from services.scaler.policy.sizing.capacity import Stretch
from services.scaler.policy.sizing.settings import Behavior, Direction, Scale, Work
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.policy.sizing.work import ABILITY, WINDOW
from tests.making.sizing import BEST, H100, OUTPUT, PLACES, PROMPT, scale, settled, traffic, view

CALM = Work(
    capacity=H100,
    window_seconds=70.0,
    utilization=1.0175,
    usual_share=0.0,
    volatility=0.0,
    late_gain=0.0,
    late_share=0.01,
    headroom_max=0.5,
    hold=0.0,
)


def of(decision: Decision, bound: Bound) -> Constraint | None:
    return next((one for one in decision.constraints if one.bound is bound), None)


def test_demand_is_measured_in_work_and_not_in_requests():
    memory, now, decision = settled(scale(work=CALM), 50.0)
    assert decision.demand == pytest.approx(50.0 / BEST / CALM.utilization, rel=0.02)
    for _ in range(20):  # as many requests, twice the prompt
        now += 10
        long = replace(traffic(50.0, now), prompt_tokens=500.0 * 2 * PROMPT)
        decision, memory = decide(scale(work=CALM), memory, view(now, 50.0, 3, traffic=long))
    per_prompt = H100.p * PROMPT + H100.c * OUTPUT * PROMPT
    demand = of(decision, Bound.DEMAND)
    assert demand is not None
    assert demand.value == pytest.approx(50 / BEST + 50 * per_prompt, rel=0.02)


def test_the_size_is_absolute_so_starting_replicas_count():
    memory, now, decision = settled(scale(work=CALM), 100.0, size=2)
    size = decision.size
    for _ in range(10):  # none of those that were started is ready yet
        now += 10
        full = traffic(100.0, now, finished=430.0, output_tokens=430.0 * OUTPUT)
        decision, memory = decide(
            scale(work=CALM),
            memory,
            view(now, 100.0, 2, starting=size - 2, running=2.0 * PLACES, traffic=full),
        )
        assert decision.size == size


def test_headroom_grows_with_the_square_root_of_the_start_time():
    policy = scale(work=replace(CALM, volatility=1.0), max=1000)
    logs = []
    for start in (50.0, 230.0, 950.0):
        _, _, decision = settled(policy, 3000.0, size=200, ticks=1, start_seconds=start)
        headroom, demand = of(decision, Bound.HEADROOM), of(decision, Bound.DEMAND)
        assert headroom is not None
        assert demand is not None
        logs.append(math.log((headroom.value or 0) / (demand.value or 1)))
    horizons = [60.0, 240.0, 960.0]
    assert [log / math.sqrt(h / 60) for log, h in zip(logs, horizons, strict=True)] == (
        pytest.approx([0.08] * 3)
    )


def test_headroom_is_what_demand_was_seen_to_grow_by():
    policy = scale(work=replace(CALM, volatility=1.0), max=100)
    memory, now, _ = settled(policy, 100.0, size=5, ticks=400)
    quiet = memory.work.volatility.variance
    assert quiet < 1e-5  # nothing ever grew
    for tick in range(400):
        now += 10
        rate = 100.0 * (1.5 if tick // 30 % 2 else 1.0)
        _, memory = decide(policy, memory, view(now, rate, memory.size))
    # ln(1.5) within 70 s, seen in 7 of 60 ticks of each swing, and what was quiet before.
    swings = math.log(1.5) ** 2 * 7 / 60 / 70 / 2
    assert memory.work.volatility.variance == pytest.approx(swings, rel=0.4)


@pytest.mark.parametrize(
    ("rate", "planned"),
    [
        (50.0, 50.0**0.5 * 100.0**0.5),  # a dip, from which demand comes back
        (100.0, 100.0),
        (200.0, 200.0),  # a peak, which is not taken to fall
    ],
)
def test_after_a_dip_demand_is_taken_to_come_back_to_its_usual_rate(rate, planned):
    policy = scale(work=replace(CALM, usual_share=0.5, usual_seconds=36_000.0), max=100)
    memory, now = SizeMemory(20), 1000.0
    for asked in [100.0] * 3600 + [rate] * 8:
        now += 10
        decision, memory = decide(policy, memory, view(now, asked, 20))
    load = max(one.value or 0.0 for one in decision.constraints)
    assert load == pytest.approx(planned / BEST, rel=0.03)


def test_what_waits_is_to_be_worked_off_in_the_time_it_may_take():
    policy = scale(work=CALM)
    memory, now, decision = settled(policy, 40.0)
    assert decision.size == 2
    waiting = 2 * BEST * CALM.queue_seconds  # two replicas for that long
    decision, _ = decide(policy, memory, view(now + 10, 40.0, 2, waiting=waiting))
    assert decision.size == math.ceil((40 / BEST + 2) / CALM.utilization)
    assert decision.constraints[-1].bound is Bound.QUEUE


@pytest.mark.parametrize(
    "behavior",
    [
        Behavior(scale_up=Direction(stabilization_window_seconds=600)),
        Behavior(scale_up=Direction(tolerance=1.0)),
    ],
)
def test_no_window_and_no_tolerance_holds_back_what_waits(behavior):
    policy = scale(work=CALM, behavior=behavior)
    memory, now, decision = settled(policy, 40.0)
    size = decision.size
    decision, _ = decide(policy, memory, view(now + 10, 40.0, size, waiting=600.0))
    assert decision.size > size


def test_what_waits_is_not_held_after_it_is_gone():
    policy = scale(work=replace(CALM, hold=5.0))
    memory, now, _ = settled(policy, 40.0)
    decision, memory = decide(policy, memory, view(now + 10, 40.0, 2, waiting=900.0))
    assert decision.size > 2
    decision, memory = decide(policy, memory, view(now + 20, 40.0, 2))
    assert decision.size == 2


def test_a_fall_of_demand_is_held_for_part_of_a_start():
    policy = scale(work=replace(CALM, hold=2.0, window_seconds=10.0))
    memory, now, decision = settled(policy, 100.0, size=5)
    sizes = []
    for _ in range(16):
        now += 10
        decision, memory = decide(policy, memory, view(now, 10.0, memory.size))
        sizes.append(decision.size)
    # twice the start of 60 s after the last tick with the old demand
    assert sizes == [5] * 12 + [1] * 4
    assert sizes[0] == decision.before or decision.size == 1


def test_late_answers_give_headroom_and_their_absence_takes_it_back():
    policy = scale(work=replace(CALM, late_gain=0.005, late_share=0.01), max=100)
    memory, now, _ = settled(policy, 100.0)
    assert memory.work.guard == pytest.approx(-60 * 0.005 * 0.01)  # nobody was late
    guards = []
    for _ in range(600):
        now += 10
        late = replace(traffic(100.0, now), late=200.0)
        decision, memory = decide(policy, memory, view(now, 100.0, 5, traffic=late))
        guards.append(memory.work.guard)
    # by gain * (late - share * arrived) / mean arrivals a tick, here 0.2 - 0.01
    assert guards[1] - guards[0] == pytest.approx(0.005 * 0.19)
    assert guards[-1] == 0.5
    assert decision.size == math.ceil(100 / BEST * math.exp(0.5) / CALM.utilization)


def test_the_check_with_one_replica_less_keeps_a_pool_from_flapping():
    def changes(spare: float) -> int:
        policy = scale(work=replace(CALM, spare=spare, window_seconds=10.0))
        memory, now, decision = settled(policy, 42.0)
        count = 0
        for tick in range(60):  # about the border of two and three replicas
            now += 10
            decision, memory = decide(policy, memory, view(now, 42.0 + 4 * (tick % 2), 3))
            count += decision.size != decision.before
        return count

    assert changes(0.0) > 50
    assert changes(0.1) <= 1


def test_just_after_a_beginning_nothing_shrinks():
    policy = scale(work=CALM)
    memory, now = SizeMemory(9), 0.0
    for _ in range(6):
        now += 10
        decision, memory = decide(policy, memory, view(now, 10.0, 9))
        assert decision.size == 9
        assert decision.constraints[-1].bound is Bound.STALE
        assert WINDOW in decision.why
    decision, _ = decide(policy, memory, view(now + 10, 10.0, 9))
    assert decision.size < 9


def test_demand_that_nobody_reports_holds_and_what_waits_still_adds():
    policy = scale(work=CALM)
    memory, now, decision = settled(policy, 100.0, size=5)
    assert decision.size == 5
    held, after = decide(policy, memory, view(now + 10, None, 5))
    assert held.size == 5
    more, _ = decide(policy, after, view(now + 20, None, 5, waiting=1000.0))
    assert more.size > 5


def test_a_hole_in_the_reports_is_not_a_fall_of_demand():
    policy = scale(work=CALM)
    memory, now, decision = settled(policy, 100.0, size=5)
    for tick in range(30):
        now += 10
        told = 100.0 if tick % 3 == 0 else None
        decision, memory = decide(policy, memory, view(now, told, 5))
        assert decision.size == 5
    assert decision.demand == pytest.approx(100 / BEST / CALM.utilization, rel=0.02)
    for tick in range(30):
        now += 10
        told = 40.0 if tick % 3 == 0 else None
        decision, memory = decide(policy, memory, view(now, told, memory.size))
    assert decision.size == 2  # nor does it keep a pool from shrinking for ever


def test_without_a_model_a_request_takes_a_place_until_answers_show_more():
    policy = Scale(max=9, work=replace(CALM, capacity=None))
    decision, memory = decide(
        policy, SizeMemory(1), view(10.0, 0.0, 1, places=10, waiting=25.0, running=10.0)
    )
    assert decision.size == 4  # 35 requests, 10 places each, 1.0175 planned
    assert "places" in decision.why
    decision, memory = decide(policy, memory, view(20.0, 0.0, 4, places=10, running=1.0))
    assert decision.size == 4
    assert ABILITY in decision.why
    now = 20.0
    for _ in range(30):
        now += 10
        decision, memory = decide(policy, memory, view(now, 30.0, memory.size))
    assert memory.work.learned.capacity is not None
    assert decision.constraints[0].bound is Bound.DEMAND
    assert decision.constraints[0].detail == ""


def test_memory_is_bounded_however_short_the_ticks_are():
    policy = scale(work=replace(CALM, window_seconds=3600.0, hold=10.0), max=1000)
    memory, now = SizeMemory(2), 0.0
    for tick in range(1600):
        now += 0.5
        seen = view(
            now,
            3000.0 - tick / 2,
            2,
            start_seconds=3600.0,
            traffic=traffic(2000.0 - tick, now, 0.5),
        )
        _, memory = decide(policy, memory, seen)
    assert len(memory.work.samples) <= 720
    assert len(memory.work.held) <= 720


@pytest.mark.parametrize("jump", [-1000.0, 1000.0])
def test_nothing_is_learned_over_a_jump_of_the_clock(jump):
    memory, now, _ = settled(scale(work=CALM), 0.04)
    before = memory.work.learned.stretch
    assert before.seconds > 0
    now += jump
    _, memory = decide(scale(work=CALM), memory, view(now, 0.04, 1))
    assert memory.work.learned.stretch == Stretch()
    for _ in range(3):
        now += 10
        _, memory = decide(scale(work=CALM), memory, view(now, 0.04, 1))
    assert 0 < memory.work.learned.stretch.seconds < before.seconds


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -10.0, 0.0])
def test_traffic_of_no_time_says_nothing(seconds):
    policy = scale(work=CALM)
    told = traffic(400.0, 1000.0, seconds=10.0)
    first = view(1000.0, 400.0, 3, traffic=replace(told, seconds=seconds))
    decision, memory = decide(policy, SizeMemory(3), first)
    assert decision.size == 3
    assert decision.demand is None
    decision, _ = decide(policy, memory, view(1010.0, 400.0, 3))
    assert decision.size == math.ceil(400.0 / BEST / CALM.utilization)
