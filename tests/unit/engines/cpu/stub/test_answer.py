"""Tokens pile up and travel together."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.cpu.messages import End, Progress
from engines.cpu.request import Generation
from engines.cpu.stub.answer import Answer

ARRIVAL = 1_000


def answer(**options: Any) -> Answer:
    return Answer(
        Generation(prompt=(7, 8), max_new_tokens=9, **{"streaming": True, **options}), ARRIVAL
    )


def test_the_first_token_never_waits_later_ones_keep_the_interval_the_end_does_not() -> None:
    got = answer()
    assert got.due_at(interval=1.0) is None
    got.add(Progress(1, [5], []))
    assert got.due_at(interval=1.0) == 0.0
    got.take(now=10.0)
    assert got.due_at(interval=1.0) is None
    got.add(Progress(1, [6], []))
    assert got.due_at(interval=1.0) == 11.0
    got.add(Progress(1, [], [], End()))
    assert got.due_at(interval=1.0) == 0.0


def test_a_whole_answer_waits_for_its_end() -> None:
    got = answer(streaming=False)
    got.add(Progress(1, [5], []))
    assert got.due_at(interval=0.0) is None


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=8), st.data())
def test_token_ids_are_deltas_and_log_probs_the_whole_list_so_far(
    pieces: list[list[int]], data: st.DataObject
) -> None:
    got = answer(log_probs=True, num_output_tokens=True)
    tokens: list[int] = []
    seen: list[int] = []
    for piece in pieces:
        tokens += piece
        got.add(Progress(1, piece, [-float(token) for token in piece]))
        if data.draw(st.booleans()):
            payload = got.take(now=1.0)
            new = payload["output_ids"][0, 0].tolist()
            seen += new
            assert payload["sequence_length"].tolist() == [[len(new)]]
            assert payload["num_output_tokens"].tolist() == [[len(new)]]
            assert payload["output_log_probs"][0, 0].tolist() == [-t for t in tokens]
            assert payload["cum_log_probs"].tolist() == [[-sum(tokens)]]
    assert [*seen, *got.take(now=2.0)["output_ids"][0, 0].tolist()] == tokens


def test_log_probs_that_were_given_away_stay_as_they_were() -> None:
    got = answer(log_probs=True)
    views, expected = [], []
    for token in range(1000):
        got.add(Progress(1, [token], [-float(token)]))
        views.append(got.take(now=1.0)["output_log_probs"])
        expected.append(-float(token))
    assert [view.shape for view in views] == [(1, 1, length) for length in range(1, 1001)]
    assert all(view[0, 0].tolist() == expected[: view.size] for view in views)


def test_log_probs_are_turned_into_numbers_of_the_tensor_once() -> None:
    class Counted(float):
        conversions = 0

        def __float__(self) -> float:
            Counted.conversions += 1
            return float.__float__(self)

    got = answer(log_probs=True)
    for _ in range(100):
        got.add(Progress(1, [5], [Counted(-0.5)]))
        got.take(now=1.0)
    assert Counted.conversions == 100


@given(st.lists(st.sampled_from([0.0, -1e-45, -1e-30, -(2.0**-20), -0.5, -100.0]), max_size=6))
def test_log_probs_are_those_of_the_engine_none_added_none_made_certain(
    values: list[float],
) -> None:
    got = answer(log_probs=True)
    got.add(Progress(1, [5] * len(values), values, End()))
    sent = got.take(now=1.0)["output_log_probs"][0, 0]
    assert sent.tolist() == np.array(values, np.float32).tolist()
    assert [value < 0 for value in sent] == [value < 0 for value in values]


def test_log_probs_nobody_asked_for_are_not_sent() -> None:
    got = answer()
    got.add(Progress(1, [5], [], End()))
    assert set(got.take(now=1.0)) == {"output_ids", "sequence_length"}


def test_wire_shapes_and_types() -> None:
    got = answer(log_probs=True, perf_metrics=True, num_input_tokens=True)
    got.add(Progress(1, [5, 6], [-1.0, -2.0], End(None, 1, 3, 10, 20, 30)))
    payload = {name: (array.dtype.name, array.shape) for name, array in got.take(now=1.0).items()}
    assert payload == {
        "output_ids": ("int32", (1, 1, 2)),
        "sequence_length": ("int32", (1, 1)),
        "output_log_probs": ("float32", (1, 1, 2)),
        "cum_log_probs": ("float32", (1, 1)),
        "num_input_tokens": ("int32", (1, 1)),
        "arrival_time_ns": ("int64", (1, 1)),
        "first_scheduled_time_ns": ("int64", (1, 1)),
        "first_token_time_ns": ("int64", (1, 1)),
        "last_token_time_ns": ("int64", (1, 1)),
        "kv_cache_alloc_new_blocks": ("int32", (1, 1)),
        "kv_cache_reused_blocks": ("int32", (1, 1)),
        "kv_cache_alloc_total_blocks": ("int32", (1, 1)),
    }


def test_what_never_happened_is_left_out() -> None:
    got = answer(perf_metrics=True)
    got.add(Progress(1, [], [], End()))
    assert set(got.take(now=1.0)) == {"output_ids", "sequence_length", "arrival_time_ns"}


def test_the_prompt_comes_first_when_it_is_not_excluded() -> None:
    got = answer(streaming=False, echo_prompt=True)
    got.add(Progress(1, [5], [], End()))
    payload = got.take(now=1.0)
    assert payload["output_ids"].tolist() == [[[7, 8, 5]]]
    assert payload["sequence_length"].tolist() == [[3]]
