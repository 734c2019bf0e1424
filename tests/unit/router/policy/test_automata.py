"""Deterministic automata: what is small comes out whole, what doubles is found in bounded work."""

from contextlib import suppress

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.automata import State, deterministic
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import read


def automaton(expression: str, most: int = 1001) -> tuple[State, ...] | None:
    return deterministic(read(expression), most, Effort())


def takes(states: tuple[State, ...], text: str) -> bool:
    number = 0
    for character in map(ord, text):
        ways = [
            to
            for ranges, to in states[number].moves
            for start, end in ranges
            if start <= character <= end
        ]
        if not ways:
            return False
        (number,) = ways  # there is only one
    return states[number].ends


@pytest.mark.parametrize(
    "expression",
    [
        ".*a.{12}",
        ".*a.{25}",
        "(.*a.{60}){3}",
        "[ab]*a[ab]{10}",
        "(?i)(x|y)*x(.|z){11}",
        ".{0,300}a.{0,300}b.{0,300}",
        "(a{1,60}){1,60}b{1,999}",
        ".*(a.{900}|b.{901})",
    ],
)
def test_a_large_automaton_is_none(expression: str) -> None:
    with suppress(TooMuch):
        assert automaton(expression) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a{0}",
        "^[A-Z]{2}[0-9]{1,64}$",
        ".{0,1000}",
        "[a-z]{1000}",
        r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$",
        r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$",
        r"^([0-9]{1,3}\.){3}[0-9]{1,3}$",
        r"^(\w+ ){0,50}\w+$",
        "^(?:[a-f0-9]{8}-(?:[a-f0-9]{4}-){3}[a-f0-9]{12})$",
        "(a*)*b",
        ".*a.{6}",
        "|".join(f"word {number}" for number in range(300)),
    ],
)
def test_a_small_one_comes_out(expression: str) -> None:
    assert automaton(expression)


def test_it_has_no_more_states_than_asked_for() -> None:
    assert automaton("a{0,99}", 99) is None
    assert len(automaton("a{0,99}", 100) or ()) == 100


EXPRESSIONS = ["(a|ab)*(b|ab)*", "(.{0,3}){0,3}a", "a?b?c?", "(a{2}){0,2}b*", "[^a-c]*a|b", "()"]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(text=st.text("abcd", max_size=12))
def test_it_takes_what_the_expression_takes(expression: str, text: str) -> None:
    states = automaton(expression)
    assert states is not None
    assert takes(states, text) == (re2.fullmatch(expression, text) is not None)
