"""What is known of pools at a tick: told once, shared in a tier, left out where not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.buckets import BUCKETS, bucket_of
from services.common.load_totals import LoadTotals
from services.scaler.load.engines import EngineReading, Engines
from services.scaler.load.loads import Loads, Report, Run, TierLoad
from services.scaler.load.queries import Queries
from services.scaler.load.signals import PoolNow, Signals
from services.scaler.policy.sizing.settings import Measure, Objectives, Query, Scale
from services.scaler.policy.sizing.views import Reading, View
from tests.making.replicas import pool

QUERIED = Scale(max=2, queries={"backlog": Query(query="q", target=1)})


class Scene:
    """Signals of which a test says all."""

    def __init__(self) -> None:
        self.loads = Loads()
        self.engines: dict[str, EngineReading] = {}
        self.answers: dict[str, Reading] = {}
        engines, queries = Engines(dict), Queries("", dict)
        engines.reading = self.engines.get  # type: ignore[method-assign]
        queries.reading = lambda _pool, name, _text: self.answers.get(name)  # type: ignore[method-assign]
        self.signals = Signals(self.loads, engines, queries)

    def report(
        self, now: float, *, router: str = "r", waiting: int = 0, running=None, **counted
    ) -> None:
        running = running or {}
        run = Run(1, {"small": LoadTotals(**counted)})
        tiers = {"small": TierLoad(waiting, sum(running.values()))}
        self.loads.take(router, Report(tiers, running, run), now)

    def view(self, *pools: PoolNow, now: float) -> View:
        return self.signals.views(pools or (one(),), now=now, wall=now)["a"]


def one(name: str = "a", ready=("a-0",), scale=None, **changes) -> PoolNow:
    settings = {"max_in_flight": 10, "scale": scale or Scale(max=2)} | changes.pop("settings", {})
    return PoolNow(name, pool(**settings), ready, **changes)


def late_and_early(early: int, late: int) -> tuple[int, ...]:
    counts = [0] * BUCKETS
    counts[bucket_of(0.1)], counts[bucket_of(10.0)] = early, late
    return tuple(counts)


def test_what_came_is_told_once():
    scene = Scene()
    scene.report(0.0, arrivals=100)
    assert scene.view(now=0.0).traffic is None, "nobody knows since when"
    scene.report(9.0, arrivals=130, prompt_tokens=600, finished=8, output_tokens=80)
    traffic = scene.view(now=10.0).traffic
    assert traffic is not None
    assert (traffic.seconds, traffic.at) == (10.0, 9.0)
    assert (traffic.arrivals, traffic.prompt_tokens) == (30, 600)
    assert (traffic.finished, traffic.output_tokens) == (8, 80)
    scene.report(19.0, arrivals=130, prompt_tokens=600, finished=8, output_tokens=80)
    traffic = scene.view(now=20.0).traffic
    assert traffic is not None
    assert (traffic.arrivals, traffic.at) == (0, 19.0)


def test_two_looks_at_the_same_time_tell_of_no_traffic():
    scene = Scene()
    scene.report(0.0)
    scene.view(now=1.0)
    assert scene.view(now=1.0).traffic is None


def test_in_an_engine_no_more_waits_than_routers_have_there():
    scene = Scene()
    scene.report(0.0, running={"a-0": 3})
    scene.engines["a-0"] = EngineReading(0.0, waiting=50.0)
    seen = scene.view(now=1.0)
    assert (seen.waiting, seen.running) == (3.0, 0.0)


def test_late_is_what_began_after_the_objective():
    scene = Scene()
    scene.report(0.0)
    scene.view(now=0.0)
    scene.report(1.0, first_text=late_and_early(7, 3))
    scale = Scale(max=2, objectives=Objectives(ttft_seconds=1.0))
    traffic = scene.view(one(scale=scale), now=1.0).traffic
    assert traffic is not None
    assert (traffic.first_texts, traffic.late) == (10, 3)


@pytest.mark.parametrize(("slow", "late"), [(2, 3), (5, 5)])
def test_slow_tokens_are_late_too_where_more_answers_have_them(slow: int, late: int):
    scene = Scene()
    scene.report(0.0)
    scene.view(now=0.0)
    counts = {"first_text": late_and_early(7, 3), "between_tokens": late_and_early(10 - slow, slow)}
    scene.report(1.0, **counts)
    held_to = Objectives(ttft_seconds=1.0, itl_seconds=1.0)
    traffic = scene.view(one(scale=Scale(max=2, objectives=held_to)), now=1.0).traffic
    assert traffic is not None
    assert traffic.late == late


def test_while_no_router_counts_nothing_is_said_and_then_all_of_it():
    scene = Scene()
    scene.report(0.0)
    scene.view(now=0.0)
    view = scene.view(now=20.0)
    assert (view.traffic, view.waiting, view.running, view.idle_seconds) == (None, None, None, None)
    assert view.readings == {}
    scene.report(30.0, arrivals=60)
    traffic = scene.view(now=30.0).traffic
    assert traffic is not None
    assert (traffic.seconds, traffic.arrivals) == (30.0, 60)


def test_a_silent_router_makes_what_is_known_old():
    scene = Scene()
    scene.report(0.0, router="other")
    for now in (0.0, 40.0):
        scene.report(now)
        view = scene.view(now=now)
    assert view.traffic is not None
    assert view.traffic.at == 0.0
    assert view.readings[Measure.WAITING].at == 0.0
    assert view.idle_seconds is None
    assert scene.signals.troubles("a", one().pool, 40.0) == [
        "router other fell silent: the pool does not shrink while it is not known what they have"
    ]
    assert scene.signals.troubles("a", pool(), 40.0) == []


def test_pools_of_a_tier_share_by_their_places():
    scene = Scene()
    small, large = one(), one("b", ready=("b-0", "b-1", "b-2"))
    scene.report(0.0)
    scene.view(small, large, now=0.0)
    scene.report(1.0, arrivals=8, waiting=4, running={"a-0": 5, "b-1": 9})
    views = scene.signals.views([small, large], now=1.0, wall=1.0)
    for name, share, running in (("a", 0.25, 5), ("b", 0.75, 9)):
        traffic = views[name].traffic
        assert traffic is not None
        assert traffic.arrivals == 8 * share
        assert (views[name].waiting, views[name].running) == (4 * share, running)


def test_a_tier_without_replicas_is_for_the_cheapest_that_can_start():
    scene = Scene()
    pools = [
        one(ready=(), settings={"usd_per_hour": 3.0}),
        one("b", ready=(), settings={"usd_per_hour": 2.0}),
        one("c", ready=(), settings={"usd_per_hour": 1.0}, fits=0),
    ]
    scene.report(0.0, waiting=5)
    views = scene.signals.views(pools, now=0.0, wall=0.0)
    assert [views[name].waiting for name in "abc"] == [0, 5, 0]


def test_what_waits_in_an_engine_waits():
    scene = Scene()
    scene.report(0.0, waiting=2, running={"a-0": 10, "a-1": 5})
    scene.engines["a-0"] = EngineReading(-3.0, waiting=4, kv=0.9)
    scene.engines["a-1"] = EngineReading(-1.0, waiting=0, kv=0.5)
    view = scene.view(one(ready=("a-0", "a-1")), now=0.0)
    assert (view.waiting, view.running) == (6, 11)
    assert view.readings[Measure.WAITING] == Reading(3.0, 0.0)
    assert view.readings[Measure.RUNNING] == Reading(11 / 20, 0.0)
    assert view.readings[Measure.KV] == Reading(0.7, -3.0)


def test_times_and_tokens_are_those_of_the_last_minute():
    scene = Scene()
    scene.report(0.0)
    scene.view(now=0.0)
    counts = late_and_early(100, 0)
    scene.report(
        10.0,
        waiting=3,
        arrivals=4,
        prompt_tokens=400,
        output_tokens=100,
        finished=100,
        first_text=counts,
        between_tokens=counts,
    )
    readings = scene.view(now=10.0).readings
    assert readings[Measure.QUEUED_TOKENS].value == 300
    assert readings[Measure.TTFT_SECONDS].value == pytest.approx(0.1, rel=0.2)
    assert readings[Measure.ITL_SECONDS].value == pytest.approx(0.1, rel=0.2)
    assert readings[Measure.TOKENS_PER_SECOND].value == 50


def test_without_answers_there_are_no_times():
    scene = Scene()
    scene.report(0.0)
    scene.report(10.0)
    readings = scene.view(now=10.0).readings
    assert Measure.TTFT_SECONDS not in readings
    assert Measure.KV not in readings


def test_queries_of_the_policy_are_readings():
    scene = Scene()
    scene.answers = {"backlog": Reading(3.0, 1.0), "other": Reading(9.0, 1.0)}
    assert scene.view(one(scale=QUERIED), now=2.0).readings == {"backlog": Reading(3.0, 1.0)}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50)), min_size=1, max_size=5))
def test_shares_add_up_to_all_that_is_asked(pools):
    scene = Scene()
    scene.report(0.0, waiting=7)
    given_pools = [
        one(str(index), ready=tuple(map(str, range(ready))), settings={"max_in_flight": places})
        for index, (ready, places) in enumerate(pools)
    ]
    views = scene.signals.views(given_pools, now=0.0, wall=0.0)
    assert sum(view.waiting or 0 for view in views.values()) == pytest.approx(7)
