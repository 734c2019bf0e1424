"""What an expression is read as, and that reading costs no more than its length."""

import pytest
import re2

from services.router.policy.expressions import Choice, NoGrammar, Part, Repeat, Row, Set, read


@pytest.mark.parametrize(
    "expression",
    [r"\Q" + "[" * 200_000 + r"\E", r"\Q" + "[" * 200_000 + "\\", r"\Q" + "[^" * 100_000 + r"\E"],
    ids=["sets without an end", "and an escape without one", "all but"],
)
def test_looking_through_an_expression_is_linear(expression: str) -> None:
    with pytest.raises(NoGrammar):  # within the test's time: a quadratic look takes minutes
        read(expression)


@pytest.mark.parametrize("expression", [r"[]a]{,3}", "[^]a]{,3}", "a{,3}", r"\\{,3}"])
def test_a_repetition_without_its_lowest_count_is_named(expression: str) -> None:
    with pytest.raises(NoGrammar, match="lowest count"):
        read(expression)


@pytest.mark.parametrize("expression", ["a{02}", "a{02,}", "a{00,3}", "[a-c]{1,03}"])
def test_a_count_with_a_zero_in_front_is_named(expression: str) -> None:
    assert re2.fullmatch(expression, expression.replace("[a-c]", "b"))  # there it is plain text
    with pytest.raises(NoGrammar, match="no zero in front"):
        read(expression)


@pytest.mark.parametrize("expression", ["a{0}", "a{0,3}", "a{10,20}", "a{0,}"])
def test_a_zero_of_its_own_is_a_count(expression: str) -> None:
    assert isinstance(read(expression), Repeat)


@pytest.mark.parametrize("expression", [r"[{,3}]", r"[\]{,3}]", r"[^{,3}\]]"])
def test_within_a_set_it_is_only_characters(expression: str) -> None:
    assert isinstance(read(expression), Set)


def test_parts_within_parts_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(_: Set) -> int:
        nonlocal asked
        asked += 1
        return 1

    monkeypatch.setattr(Set, "__hash__", counted)
    part: Part = Set(((1, 2),))
    for _ in range(50):
        part = Repeat(Choice((part, Row(()))), 0, None)
        assert {part: part}[part] is part
    assert asked == 1
