"""Prices, tiers and who may use a route."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.routes import Price
from tests.making.policies import route

amount = st.integers(0, 10**9)


@given(st.builds(Price, amount, amount), amount, amount)
def test_a_price_is_exact_and_rounded_up(price: Price, prompt: int, output: int) -> None:
    exact = Fraction(prompt * price.prompt + output * price.output, 1_000_000)
    assert 0 <= price.of(prompt, output) - exact < 1


@given(st.builds(Price, amount, amount), amount, amount, amount)
def test_more_tokens_never_cost_less(price: Price, prompt: int, output: int, more: int) -> None:
    assert price.of(prompt + more, output) >= price.of(prompt, output)
    assert price.of(prompt, output + more) >= price.of(prompt, output)


def test_no_answer_looks_free() -> None:
    assert Price(100_000, 400_000).of(1, 0) == 1
    assert Price(100_000, 400_000).of(10, 0) == 1
    assert Price(100_000, 400_000).of(10, 1) == 2
    assert Price(0, 0).of(100, 100) == 0


@given(st.builds(Price, amount, st.integers(1, 10**9)), amount, st.integers(0, 10**6))
def test_what_money_pays_for_is_within_it_and_one_more_token_is_not(
    price: Price, money: int, prompt: int
) -> None:
    tokens = price.affords(money, prompt, 10**30)
    assert (tokens >= 0) == (price.of(prompt, 0) <= money)
    if tokens >= 0:
        assert price.of(prompt, tokens) <= money < price.of(prompt, tokens + 1)
    assert price.affords(money, prompt, 7) == min(tokens, 7)


def test_free_output_is_bounded_by_what_was_asked_alone() -> None:
    assert Price(1_000_000, 0).affords(5, 5, 99) == 99
    assert Price(1_000_000, 0).affords(5, 6, 99) == -1


def test_a_route_without_tenants_is_open_and_one_with_tenants_is_theirs() -> None:
    assert route().admits("anybody")
    private = route(tenants=frozenset({"acme"}))
    assert private.admits("acme")
    assert not private.admits("umbrella")
