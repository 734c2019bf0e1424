"""What policies came to is told so that no aim is reached by rounding."""

import pytest

from bench.scaling_scores import Compared, over, percent, shown


def test_a_share_is_never_rounded_up() -> None:
    assert percent((0.98999, 3.0)) == 98.9
    assert shown((0.9899, 3.0)) == "98.99! 3.00"
    assert shown((0.99, 3.0)) == "99.00 3.00"


def test_costs_are_compared_over_the_cells_in_which_the_least_is_known() -> None:
    ours = {"a": (0.99, 3.0), "b": (0.99, 5.0), "c": (0.99, 40.0)}
    compared = Compared(ours, {}, {}, clairvoyant={"a": 2.0, "b": 4.0}, floor={"a": 1.5})
    assert compared.over_clairvoyant(ours) == pytest.approx((1.5 + 1.25) / 2)
    assert over(ours, compared.floor) == 2.0
