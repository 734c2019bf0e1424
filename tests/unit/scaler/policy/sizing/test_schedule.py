"""Bounds by time of day: when they hold, in which zone, and which schedules are refused."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.schedule import LATEST, Bounds, Times, bounds, problem_of, times
from services.scaler.policy.sizing.settings import Schedule
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound
from tests.making.sizing import scale, settled, view

OFFICE = Schedule(
    cron="0 8 * * MON-FRI", time_zone="Europe/Berlin", duration_seconds=10 * 3600.0, min=3
)
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone=BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def held(text: str, *schedules: Schedule) -> Bounds:
    return bounds(times(Times(), schedules, at(text)))


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("2026-11-27 07:59:59", None),  # a Friday
        ("2026-11-27 08:00:00", 3),
        ("2026-11-27 17:59:59", 3),
        ("2026-11-27 18:00:00", None),
        ("2026-11-28 12:00:00", None),  # a Saturday
        ("2026-07-01 08:00:00", 3),  # summer time
        ("2026-07-01 07:59:59", None),
    ],
)
def test_bounds_hold_from_each_time_on_for_a_while(text, least):
    assert held(text, OFFICE).least == least


def named(schedule: Schedule) -> str:
    return f"{schedule.cron} ({schedule.time_zone})"


def test_of_several_the_greatest_holds():
    noon = Schedule(
        cron="0 12 * * *", time_zone="Europe/Berlin", duration_seconds=3600.0, min=2, max=9
    )
    half = Schedule(cron="30 12 * * *", time_zone="Europe/Berlin", duration_seconds=3600.0, max=5)
    assert held("2026-11-27 12:10", OFFICE, noon, half) == Bounds(3, 9, named(OFFICE), named(noon))
    assert held("2026-11-27 13:10", OFFICE, noon, half) == Bounds(3, 5, named(OFFICE), named(half))
    assert held("2026-11-28 12:10", OFFICE, noon, half) == Bounds(2, 9, named(noon), named(noon))


def test_one_that_is_longer_than_its_period_always_holds():
    always = Schedule(cron="0 * * * *", duration_seconds=7200.0, min=1)
    now = times(Times(), (always,), at("2026-11-27 12:59:59", UTC))
    assert now.active == (0,)
    assert times(now, (always,), at("2026-11-27 13:00:00", UTC)).active == (0,)


@settings(deadline=None)
@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=12))
def test_what_is_remembered_gives_the_same_as_working_it_out(offsets):
    schedules = (OFFICE, Schedule(cron="15 */6 * * *", duration_seconds=5400.0, max=2))
    base = at("2026-03-27 00:00")  # over the change to summer time
    remembered = Times()
    for offset in offsets:
        remembered = times(remembered, schedules, base + offset)
        assert remembered.active == times(Times(), schedules, base + offset).active
        assert remembered.since <= base + offset < remembered.until


def test_it_is_worked_out_only_when_a_time_passes():
    first = times(Times(), (OFFICE,), at("2026-11-27 09:00"))
    assert times(first, (OFFICE,), at("2026-11-27 17:59:59")) is first
    assert times(first, (OFFICE,), at("2026-11-27 18:00")) is not first


@pytest.mark.parametrize(
    ("changes", "key", "part"),
    [
        ({"cron": "0 0 30 2 *"}, "cron", "never does"),
        ({"cron": "0 0 31 4,6 *"}, "cron", "never does"),
        ({"cron": "* * * *"}, "cron", "five fields"),
        ({"cron": "0 0 1 1 * *"}, "cron", "five fields"),
        ({"cron": "0 0 31 14 *"}, "cron", "wrong: month"),
        ({"cron": "0 0 32 * *"}, "cron", "wrong: day of month"),
        ({"cron": "0 0 1 1 */0"}, "cron", "wrong: day of week"),
        ({"cron": "61 * * * *"}, "cron", "wrong: minute, 0 to 59"),
        ({"cron": "0 8 * * FUN"}, "cron", "wrong: day of week"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "Europe/Berlin"),
        ({"time_zone": "../etc/passwd"}, "time_zone", "Europe/Berlin"),
        ({"time_zone": "/etc/passwd"}, "time_zone", "Europe/Berlin"),
        ({"time_zone": "Europe"}, "time_zone", "Europe/Berlin"),
    ],
)
def test_what_is_wrong_with_a_schedule(changes, key, part):
    found = problem_of(Schedule(**{"cron": "0 8 * * *", "duration_seconds": 3600.0, **changes}))
    assert found is not None
    assert found[0] == key
    assert part in found[1]


def test_nothing_is_wrong_with_the_29th_of_february():
    assert problem_of(Schedule(cron="0 0 29 2 *", duration_seconds=60.0)) is None
    assert problem_of(OFFICE) is None


def test_a_schedule_raises_and_lowers_the_bounds_of_a_pool():
    night = Schedule(cron="0 22 * * *", duration_seconds=3600.0, max=2)
    policy = scale(min=1, max=8, schedule=(OFFICE, night))
    memory, now, _ = settled(policy, 10.0)
    decision, after = decide(policy, memory, view(now + 10, 10.0, wall=at("2026-11-27 09:00")))
    assert decision.size == 3
    assert decision.constraints[-1].bound is Bound.SCHEDULE
    assert named(OFFICE) in decision.why
    decision, _ = decide(policy, after, view(now + 20, 10.0, wall=at("2026-11-27 19:00")))
    assert decision.size == 1
    memory, now, decision = settled(policy, 100.0, size=5)
    assert decision.size > 2
    late = view(now + 10, 100.0, 5, wall=at("2026-11-27 22:30", UTC))
    assert decide(policy, memory, late)[0].size == 2


def test_a_clock_at_the_edges_of_time_is_no_trouble():
    policy = scale(schedule=(OFFICE,))
    for wall in (-1e12, -1.0, 0.0, 1.0, LATEST - 1, LATEST, 1e12):
        assert decide(policy, SizeMemory(1), view(10.0, 1.0, wall=wall))[0].size >= 1


def test_a_sentence_names_the_zone_and_which_of_its_bounds_it_is():
    wall = at("2026-11-27 12:00")
    policy = scale(schedule=(OFFICE,))
    decision, _ = decide(policy, SizeMemory(1), view(10.0, 0.0, 1, wall=wall))
    assert decision.why == (
        "3 replicas: the schedule 0 8 * * MON-FRI (Europe/Berlin) has a min of 3."
    )
    few = scale(schedule=(replace(OFFICE, min=None, max=2),))
    decision, _ = decide(few, SizeMemory(5), view(10.0, None, 5, wall=wall))
    assert decision.why == (
        "2 replicas: the schedule 0 8 * * MON-FRI (Europe/Berlin) has a max of 2, "
        "and 5 are asked for."
    )
