"""Counters of routers: what they grew by is never negative, and makes a rate."""

from hypothesis import given
from hypothesis import strategies as st

from services.common.load_totals import LoadTotals
from services.scaler.policy.demand import Demand, grown

counts = st.lists(st.integers(0, 100), max_size=5).map(tuple)
figures = st.integers(0, 10_000)
counted = st.builds(LoadTotals, figures, figures, figures, figures, counts, counts)


def filled(some: LoadTotals) -> tuple:
    """Without the buckets at the end that nothing fell in."""

    def short(buckets: tuple[int, ...]) -> tuple[int, ...]:
        while buckets and not buckets[-1]:
            buckets = buckets[:-1]
        return buckets

    figures = (some.arrivals, some.prompt_tokens, some.output_tokens, some.finished)
    return (*figures, short(some.first_text), short(some.between_tokens))


@given(counted, counted)
def test_counters_that_go_on_grow_by_what_came(before, more):
    assert filled(grown(before, before + more, restarted=False)) == filled(more)


@given(counted, counted, st.booleans())
def test_growth_is_never_negative(before, after, restarted):
    growth = grown(before, after, restarted=restarted)
    assert not growth.falls


@given(counted, counted)
def test_counters_of_a_router_that_restarted_are_all_growth(before, after):
    assert grown(before, after, restarted=True) == after


def test_one_counter_that_fell_shows_that_all_began_again():
    before = LoadTotals(arrivals=5, prompt_tokens=100, finished=5)
    after = LoadTotals(arrivals=6, prompt_tokens=10, finished=6)
    assert grown(before, after, restarted=False) == after


def test_rates_are_by_second():
    demand = Demand(4.0, LoadTotals(8, 80, 40, 4, (0, 4)))
    assert (demand.arrivals_per_second, demand.prompt_tokens_per_second) == (2.0, 20.0)
    assert (demand.output_tokens_per_second, demand.finished_per_second) == (10.0, 1.0)
    assert 0.0001 <= demand.first_text_seconds(0.5) <= 0.00012
    assert demand.between_tokens_seconds(0.5) is None
