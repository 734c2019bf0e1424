"""Patterns whose automaton doubles with each repetition are found, in bounded work."""

import pytest

from services.router.policy.automata import TooLarge, refuse_large
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import NoGrammar


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
def test_a_large_automaton_is_refused(expression: str) -> None:
    with pytest.raises((TooLarge, TooMuch)):
        refuse_large(expression, Effort())


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
def test_a_small_one_passes(expression: str) -> None:
    refuse_large(expression, Effort())


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(NoGrammar):
        refuse_large(r"\bword", Effort())
