"""Totals of tiers add up in any order, and a difference shows where one fell."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.load_totals import LoadTotals

counts = st.lists(st.integers(0, 100), max_size=5).map(tuple)
figures = st.integers(0, 10_000)
totals = st.builds(LoadTotals, figures, figures, figures, figures, counts, counts)


@given(totals, totals, totals)
def test_adding_knows_no_order_and_no_brackets(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + LoadTotals() == a


@given(totals, totals)
def test_every_figure_is_added(a, b):
    whole = a + b
    for name in ("arrivals", "prompt_tokens", "output_tokens", "finished"):
        assert getattr(whole, name) == getattr(a, name) + getattr(b, name)
    for name in ("first_text", "between_tokens"):
        assert sum(getattr(whole, name)) == sum(getattr(a, name)) + sum(getattr(b, name))


@given(totals, totals)
def test_what_is_added_and_taken_away_again_leaves_nothing_that_falls(a, b):
    assert not ((a + b) + -b).falls
    assert not any((a + -a).first_text)


@pytest.mark.parametrize("name", [field.name for field in fields(LoadTotals)])
def test_one_figure_that_falls_shows(name):
    before = LoadTotals(5, 5, 5, 5, (5, 5), (5, 5))
    lower = (5, 4) if isinstance(getattr(before, name), tuple) else 4
    fallen = replace(before, **{name: lower})
    assert (fallen + -before).falls
    assert not (before + -before).falls
