"""What a router reports, report by report, with time passed in."""

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.buckets import BUCKETS
from services.router.clients.load_reports import LoadReports
from services.router.fleet.load import LoadWindow
from services.router.fleet.snapshot import ReplicaLoad, TierLoad
from tests.making.policies import policies, route, tier


class Scene:
    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.load = LoadWindow()
        self.tiers = [
            TierLoad("small", waiting=3, running=2, replicas=(ReplicaLoad("a", 2),)),
            TierLoad("large", waiting=0, running=1, replicas=(ReplicaLoad("b", 1),)),
        ]
        self.reports = LoadReports("r1", lambda: self.tiers, self.load, wall=lambda: self.wall)

    def answer(self, at: float, tokens: int) -> None:
        self.load.arrived("small", prompt_tokens=8)
        self.load.add("small", at, first_text=0.5, decode_seconds=1.0, tokens=tokens)

    def small(self, now: float) -> pb.TierLoad:
        return self.reports.next(now).tiers[0]


def test_a_report_names_the_router_and_when_it_and_its_counters_began() -> None:
    scene = Scene()
    first = scene.reports.next(10.0)
    scene.wall += 5
    second = scene.reports.next(15.0)
    assert (first.router, second.router) == ("r1", "r1")
    assert first.started_at.seconds == second.started_at.seconds == 1_700_000_000
    assert second.observed_at.seconds == 1_700_000_005


def test_what_waits_and_runs_is_that_of_the_moment() -> None:
    report = Scene().reports.next(10.0)
    loads = [(one.tier, one.waiting, one.running) for one in report.tiers]
    assert loads == [("small", 3, 2), ("large", 0, 1)]
    assert {one.replica: one.in_flight for one in report.replicas} == {"a": 2, "b": 1}


def test_counters_count_from_the_start() -> None:
    scene = Scene()
    for at in (10.0, 200.0):
        scene.answer(at, tokens=11)
        scene.reports.next(at)
    small = scene.small(201.0)
    assert (small.arrivals, small.prompt_tokens) == (2, 16)
    assert (small.output_tokens, small.finished) == (22, 2)
    assert len(small.first_text_counts.counts) == BUCKETS
    assert sum(small.first_text_counts.counts) == sum(small.between_tokens_counts.counts) == 2


def test_tokens_a_second_count_from_the_report_before() -> None:
    scene = Scene()
    scene.answer(9.0, tokens=50)
    assert scene.small(10.0).output_tokens_per_second == 0.0
    scene.answer(10.5, tokens=30)
    scene.answer(11.0, tokens=30)
    assert scene.small(12.0).output_tokens_per_second == 30.0
    assert scene.small(13.0).output_tokens_per_second == 0.0
    scene.answer(13.0, tokens=30)
    assert scene.small(13.0).output_tokens_per_second == 0.0  # no time has passed


def test_the_last_minute_is_still_told_in_quantiles() -> None:
    scene = Scene()
    assert list(scene.small(5.0).first_text) == []
    scene.answer(10.0, tokens=11)
    small = scene.small(10.0)
    points = [(one.quantile, one.value.ToMilliseconds()) for one in small.first_text]
    assert points == [(0.5, 500), (0.95, 500)]
    assert [one.value.ToMilliseconds() for one in small.between_tokens] == [100, 100]


def test_a_tier_that_goes_and_comes_again_makes_no_negative_rate() -> None:
    scene = Scene()
    scene.answer(9.0, tokens=50)
    scene.reports.next(10.0)
    scene.load.adopt(policies(route("chat", tier("large"))))
    scene.answer(10.5, tokens=10)
    small = scene.small(11.0)
    assert (small.output_tokens, small.output_tokens_per_second) == (10, 0.0)
