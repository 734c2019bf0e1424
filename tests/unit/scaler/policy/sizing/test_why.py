"""The sentences: the last thing that bound is named, with figures and units."""

import pytest

from services.scaler.policy.sizing.settings import (
    Behavior,
    Burst,
    Direction,
    Rate,
    RateType,
    Work,
)
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Constraint
from services.scaler.policy.sizing.why import why, why_not_fewer, why_not_more
from tests.making.sizing import BEST, H100, scale, settled, view

CALM = Work(capacity=H100, volatility=0.0, late_gain=0.0, hold=0.0, utilization=1.0)


def test_demand():
    _, _, decision = settled(scale(work=CALM), 2.5 * BEST)
    assert decision.why == (
        "3 replicas: requests ask for 2.50 replicas' worth of work, and one is planned to do 1.00."
    )
    assert decision.why_not_fewer == (
        "Not 2: requests ask for 2.50 replicas' worth of work, and one is planned to do 1.00."
    )
    assert decision.why_not_more == (
        "Not 4: 3 do 3.00 replicas' worth of work, 0.50 more than is asked for."
    )


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (1.003, 1.0, ("1.003", "1.000")),
        (3.0, 0.9996, ("3.0000", "0.9996")),
        (2.00004, 1.0, ("2.00004", "1.00000")),
        (1.5, 1.0, ("1.50", "1.00")),
        (1.0, 1.0, ("1.00", "1.00")),
        (0.5, 0.001, ("0.500", "0.001")),
    ],
)
def test_a_load_has_as_many_digits_as_its_size_needs(value, limit, said):
    sentence = why(2, (Constraint(Bound.HEADROOM, 2, "", value, limit),))
    load, usable = said
    assert (
        f"it takes {load} replicas' worth of work, and one is planned to do {usable}." in sentence
    )


def test_a_bound_above_names_what_asks_and_what_stops():
    _, _, decision = settled(scale(work=CALM, max=2), 2.5 * BEST)
    assert decision.why == "2 replicas: the most is 2, and 3 are asked for."
    assert decision.why_not_fewer == (
        "Not 1: requests ask for 2.499 replicas' worth of work, and one is planned to do 1.248."
    )
    assert decision.why_not_more == "Not 3: the most is 2, and 3 are asked for."


def test_the_least():
    _, _, decision = settled(scale(work=CALM, min=2), 0.3 * BEST)
    assert decision.why == "2 replicas: the least is 2."
    assert decision.why_not_fewer == "Not 1: the least is 2."
    assert decision.why_not_more == "Not 3: nothing asks for more than 2."


def test_a_rate_and_a_window():
    slow = Behavior(
        scale_up=Direction(policies=(Rate(type=RateType.PODS, value=1, period_seconds=600),)),
        scale_down=Direction(stabilization_window_seconds=300.0),
    )
    policy = scale(work=CALM, behavior=slow)
    memory, now, _ = settled(policy, 0.5 * BEST, size=1)
    for _ in range(8):
        now += 10
        decision, memory = decide(policy, memory, view(now, 3.5 * BEST, memory.size))
    assert decision.size == 2
    assert decision.why_not_more == (
        "Not 3: 3 replicas are wanted, and the rates allow no more change for now."
    )
    for _ in range(9):
        now += 10
        decision, memory = decide(policy, memory, view(now, 0.5 * BEST, 2))
    assert decision.why_not_fewer == (
        "Not 1: 1 replica would do now, and the greatest size asked for in the last 300 s holds."
    )


def test_a_burst():
    policy = scale(work=CALM, burst=Burst())
    memory, now, _ = settled(policy, 0.5 * BEST, size=1)
    decision, memory = decide(policy, memory, view(now + 10, 4.5 * BEST, 1))
    assert decision.size == 4
    assert decision.why.startswith("4 replicas: a burst asks for 3.88")
    decision, memory = decide(policy, memory, view(now + 20, 0.5 * BEST, 5))
    assert decision.size == 4
    for tick in range(3, 20):
        decision, memory = decide(policy, memory, view(now + 10 * tick, 0.5 * BEST, 5))
    assert decision.size == 1


def test_what_is_not_known():
    decision, _ = decide(scale(work=CALM), SizeMemory(3), view(10.0, None, 3))
    assert decision.why == "3 replicas: not known: demand; so none goes."


@pytest.mark.parametrize("bound", Bound)
def test_every_bound_has_words(bound):
    for value, limit in ((2.0, 4.0), (None, None)):
        constraints = (Constraint(Bound.DEMAND, 1), Constraint(bound, 3, "x", value, limit))
        for sentence in (
            why(3, constraints),
            why_not_fewer(3, constraints),
            why_not_more(3, constraints),
        ):
            assert sentence.endswith(".")
            assert "None" not in sentence


def test_nothing_binds():
    assert why(0, ()) == "0 replicas: nothing asks for more."
    assert why_not_fewer(0, ()) == ""
    assert why_not_more(0, ()) == "Not 1: nothing asks for it."
