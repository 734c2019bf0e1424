"""What routers report: checked, kept by age, summed."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.errors import BadRequest
from services.scaler.load import loads, reports
from services.scaler.load.loads import Loads, Report, TierLoad


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


def good(**changes) -> pb.ReportLoadRequest:
    tier = pb.TierLoad(tier="small", waiting=1, running=2, output_tokens_per_second=3.5)
    tier.first_text.add(quantile=0.95).value.FromMilliseconds(20)
    fields = {
        "router": "router-1",
        "tiers": [tier],
        "replicas": [pb.ReplicaLoad(replica="x", in_flight=2)],
    }
    return pb.ReportLoadRequest(**(fields | changes))


def test_a_good_report():
    assert reports.checked(good(), "") == Report({"small": TierLoad(1, 2)}, {"x": 2})


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
        (
            {"tiers": [pb.TierLoad(tier="a", output_tokens_per_second=float("nan"))]},
            "tiers[0].output_tokens_per_second",
        ),
        (
            {"tiers": [pb.TierLoad(tier="a", between_tokens=[pb.Quantile(quantile=2)])]},
            "tiers[0].between_tokens",
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


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_message_is_taken_or_refused(data):
    try:
        request = pb.ReportLoadRequest.FromString(data)
    except Exception:  # noqa: BLE001
        return
    with contextlib.suppress(BadRequest):
        reports.checked(request, "")
