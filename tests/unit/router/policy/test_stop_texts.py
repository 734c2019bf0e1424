"""Stop texts: however the text is cut into chunks, the answer ends at the same place."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from services.router.policy.stop_texts import StopTexts

texts = st.text(alphabet="abé", max_size=30)
stops = st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3)


def chunked(text: str, cuts: Sequence[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def run(chunks: list[str], stops: Sequence[str]) -> tuple[list[str], bool]:
    """What is sent, and whether a stop text ended it."""
    watch = StopTexts(stops)
    sent: list[str] = []
    for chunk in chunks:
        text, stopped = watch.feed(chunk)
        sent.append(text)
        if stopped:
            assert watch.rest() == ""
            return sent, True
    return [*sent, watch.rest()], False


def expected(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut before the stop text that is complete first; of two complete at once, the longer."""
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(found)[1]], True) if found else (text, False)


@given(text=texts, stops=stops, cuts=st.lists(st.integers(0, 30), max_size=12))
@example(text="abb", stops=["abb", "b"], cuts=[])
@example(text="abb", stops=["abb", "b"], cuts=[1, 2])
def test_any_chunks_give_what_a_search_in_the_whole_text_gives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    for chunks in ([text], [*text], chunked(text, cuts)):
        sent, stopped = run(chunks, stops)
        assert ("".join(sent), stopped) == expected(text, stops)


@given(text=texts, stops=stops, cuts=st.lists(st.integers(0, 30), max_size=12))
def test_no_stop_text_is_ever_sent_and_nothing_else_is_lost(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    sent, stopped = run(chunked(text, cuts), stops)
    whole = "".join(sent)
    assert not any(stop in whole for stop in stops)
    assert text.startswith(whole)
    assert stopped or whole == text


def test_what_may_begin_a_stop_text_is_held_back() -> None:
    watch = StopTexts(["END"])
    assert watch.feed("the E") == ("the ", False)
    assert watch.feed("N") == ("", False)
    assert watch.feed("T") == ("ENT", False)
    assert watch.feed("E") == ("", False)
    assert watch.rest() == "E"
    assert watch.rest() == ""


def test_the_earliest_stop_text_wins() -> None:
    assert StopTexts(["later", "soon"]).feed("so soon, later") == ("so ", True)


def test_without_stop_texts_nothing_is_held_back() -> None:
    watch = StopTexts([])
    assert watch.feed("any") == ("any", False)
    assert watch.rest() == ""
