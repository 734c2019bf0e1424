"""What a router reports, report by report."""

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
            TierLoad("small", 3, 2, (ReplicaLoad("a", 2),), max_sequence_tokens=512),
            TierLoad("large", waiting=0, running=1, replicas=(ReplicaLoad("b", 1),)),
        ]
        self.reports = LoadReports("r1", lambda: self.tiers, self.load, wall=lambda: self.wall)

    def answer(self, at: float, tokens: int) -> None:
        self.load.arrived("small", prompt_tokens=8)
        self.load.add("small", at, first_text=0.5, decode_seconds=1.0, tokens=tokens)

    def small(self) -> pb.TierLoad:
        return self.reports.next().tiers[0]


def test_a_report_names_the_router_and_when_it_and_its_counters_began() -> None:
    scene = Scene()
    first = scene.reports.next()
    scene.wall += 5
    second = scene.reports.next()
    assert (first.router, second.router) == ("r1", "r1")
    assert first.started_at.seconds == second.started_at.seconds == 1_700_000_000
    assert second.observed_at.seconds == 1_700_000_005


def test_what_waits_and_runs_is_that_of_the_moment() -> None:
    report = Scene().reports.next()
    loads = [(one.tier, one.waiting, one.running) for one in report.tiers]
    assert loads == [("small", 3, 2), ("large", 0, 1)]
    assert [one.max_sequence_tokens for one in report.tiers] == [512, 0]
    assert {one.replica: one.in_flight for one in report.replicas} == {"a": 2, "b": 1}


def test_counters_count_from_the_start() -> None:
    scene = Scene()
    for at in (10.0, 200.0):
        scene.answer(at, tokens=11)
        scene.reports.next()
    small = scene.small()
    assert (small.arrivals, small.prompt_tokens) == (2, 16)
    assert (small.output_tokens, small.finished) == (22, 2)
    assert len(small.first_text_counts.counts) == BUCKETS
    assert sum(small.first_text_counts.counts) == sum(small.between_tokens_counts.counts) == 2


def test_figures_that_do_not_add_up_over_routers_are_no_longer_sent() -> None:
    scene = Scene()
    scene.answer(10.0, tokens=11)
    small = scene.small()
    gone = [field for field in pb.TierLoad.DESCRIPTOR.fields if field.GetOptions().deprecated]
    assert len(gone) == 3
    assert not {field.name for field in gone} & {field.name for field, _ in small.ListFields()}


def test_a_tier_that_goes_and_comes_again_counts_from_nothing() -> None:
    scene = Scene()
    scene.answer(9.0, tokens=50)
    scene.reports.next()
    scene.load.adopt(policies(route("chat", tier("large"))))
    scene.answer(10.5, tokens=10)
    assert scene.small().output_tokens == 10
