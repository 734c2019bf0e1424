"""A version is made ready once; requests under way keep theirs."""

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.calibration import Rung
from services.router.policy.cascade import Cascade, first_look, uses_features
from services.router.policy.levers import lever_of_tier, levers_of
from services.router.routes.compiled import Compiled
from services.router.routes.in_force import InForce
from tests.making.policies import compiled, ladder, policies, quality, route

CHAT = route("chat", *ladder("a", "b", "c"), quality=quality(Rung(1.0, -0.5), Rung(1.0, None)))
A, B, C = CHAT.ladder


class Text:
    """Stands for a model's text, which others can tell whether it is gone."""


def made(tokenizer: str) -> tuple[Compiled, Any]:
    """A version and the only text that it has."""
    text: Any = Text()
    texts = {tokenizer: text}
    return compiled(route("chat", *ladder("a", tokenizer=tokenizer)), texts=texts), text


@given(st.sets(st.sampled_from(levers_of(CHAT))))
def test_writers_are_those_whose_levers_are_not_halted(halted: set[str]) -> None:
    chat = compiled(CHAT).route("chat")
    lower = [tier for rung, tier in enumerate((A, B)) if lever_of_tier(CHAT, rung) not in halted]
    assert chat.writers(halted) == (*lower, C)
    assert chat.first_look(halted) == first_look(CHAT, halted)


def test_each_set_of_halted_levers_is_looked_at_once() -> None:
    chat = compiled(CHAT).route("chat")
    assert chat.first_look({"tier:a"}) is chat.first_look(frozenset({"tier:a"}))
    assert chat.first_look(["tier:a"]) is not chat.first_look(())


def test_a_cascade_of_a_compiled_route_is_the_routes() -> None:
    chat = compiled(CHAT).route("chat")
    for halted in ((), ("tier:a",), ("tier:a", "tier:b")):
        ours, theirs = chat.cascade(halted), Cascade(first_look(CHAT, halted))
        assert (ours.step(), ours.candidates()) == (theirs.step(), theirs.candidates())


def test_what_a_route_needs_is_at_hand() -> None:
    version = compiled(CHAT, route("other"))
    chat = version.route("chat")
    assert chat.route is CHAT
    assert chat.policy_version == version.policies.version
    assert chat.uses_features == uses_features(CHAT)
    assert set(version.routes) == {"chat", "other"}
    with pytest.raises(KeyError):
        version.route("none")


def test_texts_are_found_by_tier() -> None:
    tiers = ladder("a", tokenizer="one") + ladder("b", "c", tokenizer="two")
    texts: dict[str, Any] = {"one": Text(), "two": Text()}
    chat = compiled(route("chat", *tiers), texts=texts).route("chat")
    assert [chat.text(tier) for tier in tiers] == [texts["one"], texts["two"], texts["two"]]


def test_a_version_without_the_text_of_a_tier_is_no_version() -> None:
    with pytest.raises(KeyError):
        Compiled(policies(CHAT), {})


def test_a_version_lives_while_a_request_travels_by_it() -> None:
    older, text = made("older")
    gone = weakref.ref(text)
    in_force = InForce(older)
    under_way = older.route("chat")
    in_force.adopt(made("newer")[0])
    del older, text
    gc.collect()
    assert under_way.text(under_way.route.top_tier) is gone()
    del under_way
    gc.collect()
    assert gone() is None


def test_the_version_in_force_is_the_one_that_was_adopted_last() -> None:
    first, second = compiled(CHAT), compiled(CHAT, route("other"))
    in_force = InForce(first)
    assert (in_force.compiled, in_force.now) == (first, first.policies)
    in_force.adopt(second)
    assert (in_force.compiled, in_force.now) == (second, second.policies)
