"""Prices, tiers and who may use a route."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.routes import Price, choose_tier
from tests.unit.router.making import route, tier

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


def test_the_policy_names_the_tier_and_says_so() -> None:
    small, large = tier("small"), tier("large")
    told = route("chat", small, large, fixed_tier=large)
    choice = choose_tier(told)
    assert choice.tier is large
    assert choice.explanation == "The policy of chat sends every request to large."
    assert route("chat", small, large).top_tier is large


def test_a_route_without_tenants_is_open_and_one_with_tenants_is_theirs() -> None:
    assert route().admits("anybody")
    private = route(tenants=frozenset({"acme"}))
    assert private.admits("acme")
    assert not private.admits("umbrella")
