"""What routers report: checked, kept by age, added up."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.buckets import BOUNDS, BUCKETS
from services.common.errors import BadRequest
from services.common.load_totals import LoadTotals
from services.scaler.load import history, loads, reports
from services.scaler.load.loads import Loads, Report, Run, TierLoad


def report(waiting=0, running=0, **replicas) -> Report:
    return Report({"small": TierLoad(waiting, running)}, replicas)


def test_routers_are_summed_until_they_fall_silent():
    known = Loads()
    known.take("a", report(1, 2), now=0.0)
    known.take("b", report(10, 20), now=5.0)
    assert known.tier("small", 9.0) == TierLoad(11, 22)
    assert known.tier("small", 11.0) == TierLoad(10, 20)
    assert known.tier("large", 9.0) == TierLoad(0, 0)
    assert (known.routers(9.0), known.routers(11.0), known.routers(16.0)) == (2, 1, 0)


def test_a_router_is_counted_once():
    known = Loads()
    known.take("a", report(1, 1), now=0.0)
    known.take("a", report(2, 2), now=1.0)
    assert known.tier("small", 1.0) == TierLoad(2, 2)


def test_a_report_from_before_the_drain_says_nothing():
    known = Loads()
    known.take("a", report(x=0), now=1.0)
    known.take("b", report(x=3), now=3.0)
    known.take("c", report(), now=3.0)
    assert known.in_flight("x", since=2.0, now=4.0) == [None, 3, 0]


def test_routers_are_bounded_and_the_silent_are_forgotten(monkeypatch):
    monkeypatch.setattr(loads, "MAX_ROUTERS", 2)
    known = Loads()
    assert known.take("a", report(), now=0.0)
    assert known.take("b", report(), now=0.0)
    assert not known.take("c", report(), now=1.0)
    assert known.take("a", report(), now=30.0)
    assert known.take("c", report(), now=61.0)


def test_a_silent_router_is_missed_for_a_time_and_so_many_at_most(monkeypatch):
    monkeypatch.setattr(loads, "MAX_MISSED", 1)
    known = Loads()
    known.take("a", report(), now=0.0)
    known.take("b", report(), now=1.0)
    assert (known.silent(10.0), known.silent(300.0), known.silent(301.0)) == ({}, {"a": 300.0}, {})
    assert (known.known_until(300.0), known.known_until(301.0)) == (0.0, None)
    known.take("b", report(), now=301.0)
    assert known.silent(320.0) == {"b": 19.0}


def test_how_long_a_tier_is_idle_is_known_where_routers_count_and_of_so_many_tiers(monkeypatch):
    monkeypatch.setattr(loads, "MAX_TIERS", 1)
    idle = {"small": TierLoad(0, 0), "large": TierLoad(0, 0)}
    known = Loads()
    known.take("a", Report(idle, {}), now=10.0)
    assert known.idle_seconds("small", 11.0) is None
    known.take("a", Report(idle, {}, Run(1, {})), now=11.0)
    assert [known.idle_seconds("small", now) for now in (9.0, 12.0)] == [0.0, 2.0]
    assert known.idle_seconds("large", 12.0) is None


def counting(started_at: int = 1, tier: str = "small", **counters: int) -> Report:
    return Report({}, {}, Run(started_at, {tier: LoadTotals(**counters)}))


def demanded(known: Loads, now: float) -> tuple[float, int]:
    """Over how many seconds, and how many arrivals."""
    demand = known.demand("small", now)
    assert demand is not None
    return demand.seconds, demand.counted.arrivals


def test_what_counters_grow_by_is_added_up_over_routers():
    known = Loads()
    for now in (0.0, 1.0, 2.0, 3.0):
        known.take("a", counting(arrivals=1000 + 10 * int(now)), now)
        known.take("b", counting(arrivals=7 + 4 * int(now)), now + 0.5)
    assert demanded(known, 4.0) == (4.0, 30 + 12)
    demand = known.demand("small", 4.0)
    assert demand.arrivals_per_second == pytest.approx(42 / 4)


def test_only_the_last_minute_counts():
    known = Loads()
    for now in range(200):
        known.take("a", counting(arrivals=100 * now if now < 100 else 9900 + now), float(now))
    assert demanded(known, 199.0) == (60.0, 60)


def test_a_router_that_started_anew_counts_from_nothing():
    known = Loads()
    known.take("a", counting(1, arrivals=500), 0.0)
    known.take("a", counting(1, arrivals=510), 1.0)
    known.take("a", counting(2, arrivals=600), 2.0)  # more than before, and yet from nothing
    assert demanded(known, 2.0) == (2.0, 610)
    known.take("a", counting(2, arrivals=3), 3.0)  # a tier that came in force anew
    assert demanded(known, 3.0) == (3.0, 613)


def test_two_runs_under_one_name_are_not_taken_for_restarts():
    known = Loads()
    for now in range(10):
        known.take("a", counting(1, arrivals=1000), float(now))
        known.take("a", counting(2, arrivals=100 + now), now + 0.5)
    assert demanded(known, 10.0)[1] == 100 + 9  # the later run from its start, the earlier not


def test_what_is_not_known_is_not_nothing():
    known = Loads()
    assert known.demand("small", 0.0) is None
    known.take("a", report(1, 1), 0.0)  # an older router
    known.take("a", report(1, 1), 5.0)
    assert known.demand("small", 5.0) is None
    known.take("b", counting(arrivals=5), 5.0)
    assert known.demand("small", 5.5) is None  # not long enough
    assert demanded(known, 6.0) == (1.0, 0)
    assert known.demand("large", 6.0) is None
    assert known.demand("small", 16.0) is None  # nobody is heard of
    known.take("b", counting(arrivals=50), 17.0)
    assert known.demand("small", 17.5) is None  # when they came is not known
    known.take("b", counting(arrivals=51), 18.0)
    assert demanded(known, 18.0) == (1.0, 1)


def test_answers_of_all_routers_make_one_distribution():
    known = Loads()
    quick, slow = [0] * 40, [0] * 60
    for name, counts in (("a", quick), ("b", slow)):
        run = Run(1, {"small": LoadTotals()})
        known.take(name, Report({}, {}, run), 0.0)
        counts[-1] = 100 if name == "a" else 20
        run = Run(1, {"small": LoadTotals(finished=counts[-1], first_text=tuple(counts))})
        known.take(name, Report({}, {}, run), 1.0)
    demand = known.demand("small", 2.0)
    assert demand.finished_per_second == 60.0
    assert demand.first_text_seconds(0.5) == pytest.approx(BOUNDS[39], rel=0.19)
    assert demand.first_text_seconds(0.95) == pytest.approx(BOUNDS[59], rel=0.19)
    assert demand.between_tokens_seconds(0.5) is None


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 50),
        st.sampled_from(("goes on", "goes on", "goes on", "restarts", "forgets the tier")),
    ),
    max_size=30,
)


@given(steps)
def test_the_sum_is_what_routers_did_and_never_negative(history):
    """Whatever restarts: what came after the first report of each router is counted once."""
    known, counters, started, expected = Loads(), dict.fromkeys("abc", 0), {}, 0
    for number, (router, more, event) in enumerate(history):
        now = number * 0.5
        if router not in started:
            started[router] = 1
            counters[router] = more
        else:
            expected += more
            if event == "restarts":
                started[router] += 1
            if event != "goes on":
                counters[router] = 0
            if event == "forgets the tier":
                known.take(router, Report({}, {}, Run(started[router], {})), now)
            counters[router] += more
        known.take(router, counting(started[router], arrivals=counters[router]), now)
        before = known.demand("small", now)
        assert before is None or before.counted.arrivals == expected
        assert before is None or before.arrivals_per_second >= 0


def good(**changes) -> pb.ReportLoadRequest:
    tier = pb.TierLoad(tier="small", waiting=1, running=2)
    fields = {
        "router": "router-1",
        "tiers": [tier],
        "replicas": [pb.ReplicaLoad(replica="x", in_flight=2)],
    }
    return pb.ReportLoadRequest(**(fields | changes))


def test_a_report_of_a_router_that_reports_no_counters():
    assert reports.checked(good(), "") == Report({"small": TierLoad(1, 2)}, {"x": 2})


def test_of_the_longest_requests_that_routers_send_the_longest_counts():
    known = Loads()
    for router, longest in (("a", 512), ("b", 0), ("c", 256)):
        tier = pb.TierLoad(tier="small", max_sequence_tokens=longest)
        known.take(router, reports.checked(good(router=router, tiers=[tier]), ""), 0.0)
    assert known.tier("small", 1.0).longest == 512
    assert known.tier("large", 1.0).longest == 0
    with pytest.raises(BadRequest):
        reports.checked(good(tiers=[pb.TierLoad(tier="small", max_sequence_tokens=-1)]), "")


@pytest.mark.parametrize("rate", [3.5, -1.0, float("nan")])
def test_what_older_routers_send_beside_is_taken_and_left_alone(rate):
    tier = pb.TierLoad(tier="small", waiting=1, running=2, output_tokens_per_second=rate)
    for points in (tier.first_text, tier.between_tokens):
        points.add(quantile=0.95).value.FromMilliseconds(20)
    assert reports.checked(good(tiers=[tier]), "") == reports.checked(good(), "")


def test_a_good_report_with_counters():
    request = good(
        tiers=[
            pb.TierLoad(
                tier="small",
                arrivals=5,
                prompt_tokens=50,
                output_tokens=70,
                finished=4,
                first_text_counts=pb.DurationCounts(counts=[0, 4]),
                between_tokens_counts=pb.DurationCounts(counts=[3]),
            )
        ]
    )
    request.started_at.FromSeconds(3)
    counted = LoadTotals(5, 50, 70, 4, (0, 4), (3,))
    assert reports.checked(request, "").run == Run(3 * 10**9, {"small": counted})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"router": ""}, "router"),
        ({"router": "a b"}, "router"),
        ({"router": "r" * 129}, "router"),
        ({"router": "other"}, "router"),
        ({"tiers": [pb.TierLoad(tier="a"), pb.TierLoad(tier="a")]}, "tiers"),
        ({"tiers": [pb.TierLoad()]}, "tiers[0].tier"),
        ({"tiers": [pb.TierLoad(tier="a", waiting=-1)]}, "tiers[0].waiting"),
        ({"tiers": [pb.TierLoad(tier="a", running=-1)]}, "tiers[0].running"),
        ({"tiers": [pb.TierLoad(tier="a", output_tokens=-1)]}, "tiers[0].output_tokens"),
        (
            {"tiers": [pb.TierLoad(tier="a", first_text_counts=pb.DurationCounts(counts=[1, -1]))]},
            "tiers[0].first_text_counts",
        ),
        (
            {
                "tiers": [
                    pb.TierLoad(
                        tier="a",
                        between_tokens_counts=pb.DurationCounts(counts=[0] * (BUCKETS + 1)),
                    )
                ]
            },
            "tiers[0].between_tokens_counts",
        ),
        ({"tiers": [pb.TierLoad(tier=str(number)) for number in range(65)]}, "tiers"),
        ({"replicas": [pb.ReplicaLoad(replica="x", in_flight=-1)]}, "replicas[0]"),
        ({"replicas": [pb.ReplicaLoad(in_flight=1)]}, "replicas[0]"),
        ({"replicas": [pb.ReplicaLoad(replica="x")] * 2}, "replicas"),
    ],
)
def test_a_bad_report_is_named_by_field(changes, field):
    with pytest.raises(BadRequest) as caught:
        reports.checked(good(**changes), "router-1")
    assert field in [violation.name for violation in caught.value.violations]


def test_of_too_many_replicas_none_is_looked_at():
    with pytest.raises(BadRequest) as caught:
        reports.checked(good(replicas=[pb.ReplicaLoad()] * 5000), "router-1")
    assert [violation.name for violation in caught.value.violations] == ["replicas"]


@given(st.binary(max_size=200))
def test_any_message_is_taken_or_refused(data):
    try:
        request = pb.ReportLoadRequest.FromString(data)
    except Exception:  # noqa: BLE001
        return
    with contextlib.suppress(BadRequest):
        reports.checked(request, "")


def test_a_router_that_falls_silent_is_missed_for_a_while():
    known = Loads()
    known.take("a", counting(arrivals=1), 0.0)
    known.take("b", counting(arrivals=1), 0.0)
    for now in (5.0, 20.0, 100.0):
        known.take("a", counting(arrivals=2), now)
    assert known.silent(100.0) == {"b": 100.0}
    assert known.known_until(100.0) == 0.0
    known.take("a", counting(arrivals=2), 301.0)
    assert known.silent(301.0) == {}
    assert known.known_until(301.0) == 301.0
    assert Loads().known_until(0.0) is None


def test_counters_are_added_up_since_the_beginning_whoever_restarts():
    known = Loads()
    known.take("a", counting(arrivals=1000), 0.0)
    known.take("a", counting(arrivals=1010), 1.0)
    known.take("a", counting(started_at=2, arrivals=4), 2.0)
    assert known.counted()["small"].arrivals == 14


def test_a_tier_is_idle_since_the_last_request_was_seen():
    known = Loads()
    assert known.idle_seconds("small", 0.0) is None

    def take(now: float, arrivals: int, waiting: int = 0) -> None:
        run = Run(1, {"small": LoadTotals(arrivals=arrivals)})
        known.take("a", Report({"small": TierLoad(waiting, 0)}, {}, run), now)

    take(1.0, 10)
    take(4.0, 10)
    assert known.idle_seconds("small", 5.0) == 4.0
    take(6.0, 11)
    take(8.0, 11, waiting=1)
    take(9.0, 11)
    assert known.idle_seconds("small", 10.0) == 2.0
    assert known.idle_seconds("small", 30.0) is None, "nobody says so any more"


def leaving(one: Report) -> Report:
    return replace(one, leaving=True)


def test_a_router_that_leaves_is_forgotten_at_once_and_what_it_counted_is_not():
    known = Loads()
    known.take("a", counting(arrivals=3), now=0.0)
    known.take("b", report(2, 1, x=1), now=0.0)
    known.take("a", leaving(counting(arrivals=5)), now=1.0)
    assert known.counted()["small"].arrivals == 2
    assert known.routers(1.0) == 1
    assert known.in_flight("x", since=0.0, now=1.0) == [1]
    known.take("b", leaving(report()), now=1.0)
    assert known.silent(12.0) == {}
    assert known.known_until(12.0) is None
    known.take("c", report(), now=1.0)
    assert known.silent(12.0) == {"c": 11.0}  # it vanished


def test_who_leaves_does_not_take_a_later_run_of_its_name_along():
    known = Loads()
    known.take("a", counting(2, arrivals=1), now=0.0)
    known.take("a", leaving(counting(1, arrivals=9)), now=1.0)
    assert known.routers(1.0) == 1
    known.take("a", counting(2, arrivals=2), now=2.0)
    assert known.counted()["small"].arrivals == 1


def test_of_so_many_tiers_at_most_counters_are_kept(monkeypatch):
    monkeypatch.setattr(loads, "MAX_TIERS", 1)
    monkeypatch.setattr(history, "MAX_TIERS", 1)
    known = Loads()
    for now, arrivals in ((0.0, 5), (5.0, 9)):
        both = {name: LoadTotals(arrivals=arrivals) for name in ("small", "large")}
        known.take("a", Report({}, {}, Run(1, both)), now)
    assert {tier: one.arrivals for tier, one in known.counted().items()} == {"small": 4}
    assert known.demand("small", 5.0) is not None
    assert known.demand("large", 5.0) is None


def test_no_demand_is_known_for_longer_than_the_history():
    known = Loads()
    for now in range(0, 201, 5):
        known.take("a", counting(arrivals=now), float(now))
    found = known.demand("small", 200.0, seconds=150.0)
    assert found is not None
    assert (found.seconds, found.counted.arrivals) == (60.0, 60)


def test_a_tier_whose_requests_came_and_went_between_two_reports_is_not_idle():
    known = Loads()
    for now, arrivals in ((0.0, 5), (5.0, 5), (10.0, 6), (15.0, 6)):
        run = Run(1, {"small": LoadTotals(arrivals=arrivals)})
        known.take("a", Report({"small": TierLoad(0, 0)}, {}, run), now)
    assert known.idle_seconds("small", 16.0) == 6.0
