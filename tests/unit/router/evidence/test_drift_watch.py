"""The watch on traffic: what it counts, what it tells, what it forgets."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.router.evidence.drift import MAX_REQUESTS, DriftWatch
from services.router.metrics import Metrics
from services.router.policy.calibration import Rung
from services.router.policy.cascade import Cascade, first_look
from services.router.policy.certainty import Certainty
from services.router.policy.drift import Bands, Histogram, Rate
from services.router.policy.routes import Route
from tests.making.policies import calibrated, ladder, policies, quality, route


def chat() -> Route:
    certainties = Histogram.of([-0.01 * at for at in range(1000)])
    calibration = replace(
        calibrated(Rung(1.0, -5.0)), bands=Bands(Rate(0.5, 1000), (None,), (certainties,))
    )
    return route("chat", *ladder("small", "large"), quality=quality(calibration=calibration))


class Watch:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.watch = DriftWatch(Metrics(self.registry))
        self.route = chat()

    def requests(self, count: int, sure: float, halted: tuple[str, ...] = ()) -> None:
        for _ in range(count):
            cascade = Cascade(first_look(self.route, halted))
            if cascade.step().checked:
                cascade.stands(Certainty(sure, sure, sure), valid=True)
                cascade.step()
            self.watch.note(self.route, cascade)
        self.watch.look()

    def alert(self, name: str) -> float | None:
        labels = {"route": "chat", "watch": name}
        return self.registry.get_sample_value("pennyweight_router_drift_alert", labels)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_traffic_as_it_was_calibrated_alerts_nobody(watch: Watch) -> None:
    for at in range(500):
        watch.requests(1, -0.02 * at)
    assert watch.alert("escalation") == 0
    assert watch.alert("certainty.0") == 0


def test_answers_that_become_unsure_are_told(watch: Watch) -> None:
    watch.requests(300, -9.0)
    assert (watch.alert("escalation"), watch.alert("certainty.0")) == (1, 1)


def test_requests_of_a_halted_lever_are_no_drift(watch: Watch) -> None:
    watch.requests(300, -9.0, halted=("tier:small",))
    assert watch.alert("escalation") is None


def test_a_new_calibration_and_a_full_window_begin_anew(watch: Watch) -> None:
    watch.requests(300, -9.0)
    watch.route = chat()
    watch.requests(3, -0.1)
    assert watch.alert("escalation") == 0
    watch.requests(MAX_REQUESTS, -9.0)
    assert watch.alert("escalation") == 1
    watch.watch.look()
    assert watch.alert("escalation") == 0


def test_routes_without_a_calibration_are_forgotten(watch: Watch) -> None:
    watch.requests(300, -9.0)
    gone: Any = replace(watch.route, quality=quality())
    watch.watch.adopt(policies(gone))
    assert watch.alert("escalation") is None
    watch.watch.look()
    assert watch.alert("escalation") is None


def test_requests_that_came_under_older_policies_count_no_more(watch: Watch) -> None:
    older, watch.route = watch.route, chat()
    watch.watch.adopt(policies(watch.route))
    watch.requests(300, -9.0)
    watch.route = older
    watch.requests(1, -0.1)
    assert watch.alert("escalation") == 1
    gone: Any = replace(watch.route, quality=quality())
    watch.watch.adopt(policies(gone))
    watch.requests(300, -9.0)
    assert watch.alert("escalation") is None
