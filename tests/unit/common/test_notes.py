"""Authors and reasons are one line of what can be seen, whatever the language."""

import pytest

from services.common.notes import text_violations


def rules(text, **more):
    return [one.rule for one in text_violations("author", text, 8, **more)]


@pytest.mark.parametrize("text", ["ada", "Zoë 李", "a b", "ada👍", "5 €", "12345678"])
def test_what_can_be_seen_is_taken(text):
    assert rules(text) == []


@pytest.mark.parametrize(
    "unseen", ["\n", "\0", "\x7f", "\u202e", "\u2066", "\u200b", "\u2028", "\u2029", "\ufeff"]
)
def test_what_turns_around_or_hides_is_refused(unseen):
    (rule,) = rules(f"a{unseen}b")
    assert rule == "must be one line, without control and other unseen characters"


def test_a_text_is_there_and_not_too_long():
    assert rules(" \u00a0") == rules("") == rules(" ", required=False) == ["is required"]
    assert rules("", required=False) == []
    assert rules("123456789") == ["must have at most 8 characters, got 9"]
