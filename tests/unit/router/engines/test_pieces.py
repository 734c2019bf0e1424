"""Pieces of text: every token is counted with the text that it completes."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.engines.pieces import Pieces
from services.router.engines.tokenizer import ModelText
from services.router.ports import Finish, Piece
from tests.making.policies import TOKENIZER
from tests.making.walking import Letters

MODEL = ModelText(TOKENIZER)


def told(pieces: Pieces, tokens: Sequence[int], sizes: Sequence[int]) -> list[Piece]:
    """The pieces of an answer that comes in chunks of these sizes, over and over."""
    found, at, turn = [], 0, 0
    while at < len(tokens) or not found:
        size = sizes[turn % len(sizes)]
        chunk = tokens[at : at + size]
        at, turn = at + size, turn + 1
        found.append(pieces.take(chunk, final=at >= len(tokens)))
    return found


@given(
    text=st.text(alphabet="abé🎈漢 ", max_size=30),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_tokens_are_counted_with_the_text_they_complete(text: str, sizes: list[int]) -> None:
    tokens = MODEL.encode_plain(text)
    pieces = told(Pieces(MODEL.detokenizer(), (), 1000), tokens, sizes)
    assert sum(piece.tokens for piece in pieces) == len(tokens)
    assert all(piece.text or not piece.tokens or piece.ended for piece in pieces)
    assert [piece.ended for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@given(
    text=st.text(alphabet="ab", max_size=30),
    stop=st.text(alphabet="ab", min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_a_stop_text_ends_the_answer_however_it_comes(
    text: str, stop: str, sizes: list[int]
) -> None:
    pieces = told(Pieces(Letters(), (stop,), 1000), [ord(one) for one in text], sizes)
    assert "".join(piece.text for piece in pieces) == text.partition(stop)[0]
    ended = next(at for at, piece in enumerate(pieces) if piece.ended)
    assert all(piece == Piece("", 0, ended=True) for piece in pieces[ended + 1 :])
    counted = text.partition(stop)[0] + stop if stop in text else text
    assert sum(piece.tokens for piece in pieces) == len(counted)  # whatever has piled up


@pytest.mark.parametrize(("limit", "reason"), [(3, Finish.LENGTH), (4, Finish.STOP)])
def test_an_answer_of_all_its_tokens_ended_at_its_length(limit: int, reason: Finish) -> None:
    pieces = Pieces(Letters(), (), limit)
    pieces.take([97, 98], final=False)
    pieces.take([99], final=True)
    assert pieces.finish_reason is reason


def test_a_stop_text_at_the_last_token_is_a_stop() -> None:
    pieces = Pieces(Letters(), ("c",), 3)
    assert pieces.take([97, 98, 99], final=True) == Piece("ab", 3, ended=True)
    assert pieces.finish_reason is Finish.STOP
