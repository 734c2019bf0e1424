"""Stop sequences of several tokens in a stream."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from engines.cpu.stops import StopMatcher

token = st.integers(0, 2)
word = st.lists(token, min_size=1, max_size=4).map(tuple)


def test_a_beginning_of_a_stop_sequence_is_held_back() -> None:
    matcher = StopMatcher([(1, 2, 3)])
    assert matcher.feed([5, 1]) == ([5], False)
    assert matcher.feed([2]) == ([], False)
    assert matcher.feed([4]) == ([1, 2, 4], False)
    assert matcher.flush() == []


def test_a_text_that_is_spelled_with_other_tokens_is_not_found() -> None:
    end, of_turn, end_of, turn = 1, 2, 3, 4  # "end of turn", in two ways
    assert StopMatcher([(end, of_turn)]).feed([end_of, turn, 9]) == ([end_of, turn, 9], False)


def test_no_part_of_a_stop_sequence_is_sent() -> None:
    matcher = StopMatcher([(1, 2, 3)])
    assert matcher.feed([5, 1, 2, 3]) == ([5], True)
    assert matcher.flush() == []


def test_what_is_held_comes_out_when_the_answer_ends_otherwise() -> None:
    matcher = StopMatcher([(1, 2, 3)])
    assert matcher.feed([5, 1, 2]) == ([5], False)
    assert matcher.flush() == [1, 2]


@given(st.lists(word, min_size=1, max_size=3), st.lists(token, max_size=30), st.data())
def test_any_cut_of_the_stream_gives_the_text_before_the_first_stop(
    words: list[tuple[int, ...]], stream: list[int], data: st.DataObject
) -> None:
    whole = tuple(stream)
    ends = [
        (end, max(len(w) for w in words if whole[end - len(w) : end] == w and end >= len(w)))
        for end in range(len(whole) + 1)
        if any(end >= len(w) and whole[end - len(w) : end] == w for w in words)
    ]
    matcher = StopMatcher(words)
    got: list[int] = []
    stopped = False
    rest = stream
    while rest and not stopped:
        size = data.draw(st.integers(1, len(rest)))
        safe, stopped = matcher.feed(rest[:size])
        got += safe
        rest = rest[size:]
    got += matcher.flush()
    assert stopped is bool(ends)
    if not ends:
        assert got == stream
    else:
        end, longest = ends[0]
        assert got == stream[: len(got)]
        assert end - longest <= len(got) < end


def test_a_token_takes_as_long_whether_words_are_long_and_nearly_there_or_not() -> None:
    """All answers of the engine wait while one of them is looked at."""
    steps = 0

    def count(*_: object) -> object:
        nonlocal steps
        steps += 1
        return count

    words = [(first, *[1] * 254, 2) for first in (3, 4, 5, 6, 7)]
    matcher = StopMatcher(words)
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        assert matcher.feed([7, *[1] * 254, 1]) == ([7, *[1] * 255], False)
    finally:
        sys.settrace(None)
    assert steps < 256 * len(words) * 12
