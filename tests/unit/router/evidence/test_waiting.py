"""What waits in the shared state is read as it was written, by this version or an older one."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.router.evidence.waiting import Outcome, WaitingPair, losses
from services.router.policy.calibration import Rung
from tests.making.policies import ladder, quality, route

CHAT = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))

WRITTEN = (
    b'{"route":"chat","calibration":"2026-11-01-abc","answered":0,"digests":["on monday",'
    b'"on tuesday"],"weight":0.25,"losses_of":{"tier:small":[1,0],"tier:medium":[1,0]}}'
)
"""As the first version wrote it."""

PAIR = WaitingPair(
    route="chat",
    calibration="2026-11-01-abc",
    answered=0,
    digests=("on monday", "on tuesday"),
    weight=0.25,
    losses_of={"tier:small": (1, 0), "tier:medium": (1, 0)},
)

RESOLVED = Outcome(resolved=True, rating=None, corrected_digest=None)
UNRESOLVED = Outcome(resolved=False, rating=None, corrected_digest=None)


@st.composite
def pairs(draw: st.DrawFn) -> WaitingPair:
    digests = draw(st.lists(st.text(min_size=1), min_size=1, max_size=4))
    answers = st.integers(0, len(digests) - 1)
    return WaitingPair(
        route=draw(st.text()),
        calibration=draw(st.text()),
        answered=draw(answers),
        digests=tuple(digests),
        weight=draw(st.floats(0.0, 1.0, exclude_min=True)),
        losses_of=draw(st.dictionaries(st.text(), st.tuples(answers, answers), max_size=4)),
    )


@given(pairs())
def test_a_pair_comes_back_as_it_was(pair: WaitingPair) -> None:
    assert WaitingPair.from_bytes(pair.to_bytes()) == pair


@given(
    st.builds(
        Outcome,
        resolved=st.none() | st.booleans(),
        rating=st.none() | st.floats(-1.0, 1.0),
        corrected_digest=st.none() | st.text(),
    )
)
def test_an_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    assert Outcome.from_bytes(outcome.to_bytes()) == outcome


def test_what_the_first_version_wrote_is_read_and_what_we_write_looks_the_same() -> None:
    assert WaitingPair.from_bytes(WRITTEN) == PAIR
    assert orjson.loads(PAIR.to_bytes()) == orjson.loads(WRITTEN)


def test_keys_of_later_versions_are_passed_over() -> None:
    later = orjson.dumps(orjson.loads(WRITTEN) | {"judge": {"kind": "outcome"}})
    assert WaitingPair.from_bytes(later) == PAIR


@pytest.mark.parametrize("key", sorted(orjson.loads(WRITTEN)))
def test_a_pair_without_one_of_its_keys_is_refused(key: str) -> None:
    kept = orjson.loads(WRITTEN)
    del kept[key]
    with pytest.raises(ValueError, match=key):
        WaitingPair.from_bytes(orjson.dumps(kept))


@pytest.mark.parametrize(
    "changes",
    [
        {"route": 7},
        {"calibration": None},
        {"answered": 2},
        {"answered": -1},
        {"answered": "small"},
        {"answered": True},
        {"digests": None},
        {"digests": []},
        {"digests": [1, 2]},
        {"digests": ["on monday", ""]},
        {"digests": "ab"},
        {"weight": 0.0},
        {"weight": 2.0},
        {"weight": "1.0"},
        {"weight": None},
        {"losses_of": []},
        {"losses_of": {"tier:small": [1]}},
        {"losses_of": {"tier:small": [1, 2]}},
        {"losses_of": {"tier:small": [-1, 0]}},
        {"losses_of": {"tier:small": ["a", "b"]}},
        {"losses_of": {"tier:small": None}},
    ],
)
def test_a_damaged_pair_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"answer|digests|weight|losses_of|route|calibration"):
        WaitingPair.from_bytes(orjson.dumps(orjson.loads(WRITTEN) | changes))


@pytest.mark.parametrize("kept", [b"", b"no JSON", b"[]", b"null", b"{}", b"7", b"\xff"])
def test_what_is_no_pair_is_refused(kept: bytes) -> None:
    with pytest.raises(ValidationError):
        WaitingPair.from_bytes(kept)


@pytest.mark.parametrize(
    "kept",
    [b"", b"no JSON", b"{}", b"null", b"[]", b"[true]", b"[1, null, null]", b'[null, "x", 2]'],
)
def test_what_is_no_outcome_is_refused(kept: bytes) -> None:
    with pytest.raises(ValidationError):
        Outcome.from_bytes(kept)


def test_a_tier_whose_answer_was_wrong_lost_at_most_all() -> None:
    assert losses(CHAT, PAIR, UNRESOLVED) == {"tier:small": 1.0}


def test_a_tier_whose_answer_was_right_lost_nothing() -> None:
    assert losses(CHAT, PAIR, RESOLVED) == {"tier:small": 0.0}


def test_levers_of_which_nothing_is_known_are_left_out() -> None:
    rated = Outcome(resolved=None, rating=1.0, corrected_digest=None)
    asked = {"digests": ("on monday", "on tuesday", "on friday")}
    known = PAIR.model_copy(update=asked | {"losses_of": {"tier:small": (2, 0)}})
    assert losses(CHAT, known, rated) == {"tier:small": 0.0}
    unknown = PAIR.model_copy(update=asked | {"losses_of": {"tier:small": (2, 1)}})
    assert losses(CHAT, unknown, rated) == {}


def test_a_pair_says_nothing_about_another_calibration() -> None:
    assert losses(CHAT, PAIR.model_copy(update={"calibration": "2026-10-01-abc"}), RESOLVED) == {}


def test_a_pair_of_another_route_is_refused() -> None:
    with pytest.raises(ValueError, match="another route"):
        losses(CHAT, PAIR.model_copy(update={"route": "mail"}), RESOLVED)


@pytest.mark.parametrize("rating", [None, 2.0])
def test_an_outcome_that_says_nothing_is_refused(rating: float | None) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        losses(CHAT, PAIR, Outcome(resolved=None, rating=rating, corrected_digest=None))
