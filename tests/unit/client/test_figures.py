"""Figures of decisions carry their units."""

import pytest

from pennyweight.command.scaler.figures import measured_and_against, span
from pennyweight.command.show import dollars
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import name_of


@pytest.mark.parametrize(
    ("bound", "detail", "figures", "shown"),
    [
        ("demand", "", (0.30589, 0.4608), ("0.3059 work", "0.4608 work each")),
        ("stabilization", "", (0, 120), ("0 replicas", "120 s")),
        ("idle", "", (1157, 30), ("1,157 s", "30 s")),
        ("max", "", (8, 3), ("8 replicas", "3 replicas")),
        ("rate", "", (1, None), ("1 replica", "-")),
        ("spare", "", (0.5, 0.1), ("0.5 work", "10 %")),
        ("tolerance", "", (1.05, 0.1), ("105 %", "10 %")),
        ("tolerance", "kv", (0.75, 0.7), ("0.75", "0.7")),
        ("signal", "waiting", (6, 4), ("6", "4")),
        ("money", "hour", (1.2, 0.8), ("$1.20 an hour", "$0.80 an hour")),
        ("override", "", (None, 0), ("-", "1970-01-01 00:00:00 UTC")),
    ],
)
def test_each_bound_has_its_units(
    bound: str, detail: str, figures: tuple[float, float], shown: tuple[str, str]
) -> None:
    assert measured_and_against(bound, detail, *figures) == shown


@pytest.mark.parametrize("number", pb.Bound.values())
def test_every_bound_can_be_shown(number: int) -> None:
    bound = name_of(pb.Bound.DESCRIPTOR, "BOUND", number)
    assert all(measured_and_against(bound, "x", 2.0, 4.0))


@pytest.mark.parametrize(
    ("micro_usd", "shown"), [(0, "$0.00"), (800_000, "$0.80"), (12, "$0.000012")]
)
def test_dollars_of_replicas_have_one_form(micro_usd: int, shown: str) -> None:
    assert dollars(micro_usd) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3420, "57 minutes"), (9000, "2.5 hours"), (6e5, "6.9 days")]
)
def test_how_long_is_told_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert span(seconds) == shown
