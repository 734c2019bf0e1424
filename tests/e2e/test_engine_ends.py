"""How requests end before their time behind a real Triton, and that every token is counted."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.triton_fixtures import Answer, SharedStream, Triton, finish, start, until

PROMPT = [1, 4, 100, 200, 300, 5]
LONG = 900
"""More tokens than any of these tests lets a request make."""

FIGURES = (
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "kv_cache_alloc_total_blocks",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """The large model with room for two at a time: slow, and easy to fill."""
    parameters = {"max_batch": "2", "kv_cache_blocks": "64", "max_responses_per_second": "100000"}
    with Triton(tmp_path_factory.mktemp("triton"), "large", parameters=parameters) as triton:
        triton.wait_ready()
        yield triton


@pytest.fixture(scope="module")
def reference(server: Triton) -> list[int]:
    """What the model answers to `PROMPT` when nobody ends it."""
    return server.generate(PROMPT, LONG, streaming=False).tokens


def stop(server: Triton, request_id: str) -> Any:
    return server.request([1], 1, request_id=request_id, stop=True)


def whole(server: Triton, request_id: str, **options: Any) -> Any:
    """A request for a long whole answer, with all that can be asked about it."""
    return server.request(
        PROMPT,
        LONG,
        request_id=request_id,
        streaming=False,
        return_perf_metrics=True,
        return_num_output_tokens=True,
        outputs=[*FIGURES, "num_output_tokens"],
        **options,
    )


def give(stream: SharedStream, server: Triton, request: Any) -> None:
    """Send a request and wait until the engine has it."""
    stream.send(request, stop(server, "nobody"))
    assert [name for name, _ in stream.take(1)] == ["nobody"]


@contextlib.contextmanager
def beside(server: Triton) -> Iterator[None]:
    """A stream has its first token, so what ran before has some too; ended on the way out."""
    call, answer = start(server, [1, 2, 3], LONG, request_id="beside")
    yield
    server.generate([1], 1, request_id="beside", stop=True)
    finish(call, answer)
    assert len(answer.tokens) < LONG, "it ended too early to prove anything"


def test_hanging_up_reaches_the_engine(server: Triton) -> None:
    call, _ = start(server, PROMPT, LONG)
    until(lambda: server.active() == 1)
    call.cancel()
    assert until(lambda: server.active() == 0) < 0.3  # 0.1 of it is how often metrics come
    used = 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used"}'
    until(lambda: server.metrics()[used] == 0)


def test_a_stopped_stream_ends_with_what_it_has(server: Triton, reference: list[int]) -> None:
    call, answer = start(
        server, PROMPT, LONG, request_id="a", return_perf_metrics=True, outputs=FIGURES
    )
    reply = server.generate([1], 1, request_id="a", stop=True)
    assert (reply.error, reply.final, reply.responses) == ("", True, [{}])
    finish(call, answer)
    assert (answer.error, answer.final) == ("", True)
    assert 0 < len(answer.tokens) < LONG
    assert answer.tokens == reference[: len(answer.tokens)]
    assert set(FIGURES) <= answer.last.keys()


@pytest.mark.parametrize("log_probs", [True, False])
def test_a_stopped_whole_answer_says_how_far_it_came(
    server: Triton, reference: list[int], *, log_probs: bool
) -> None:
    with SharedStream(server) as stream:
        give(stream, server, whole(server, "a", return_log_probs=log_probs))
        with beside(server):
            stream.send(stop(server, "a"))
            # The reply to the stop has the id of what it stops, and no tensors.
            messages = {tuple(answer.last): (name, answer) for name, answer in stream.take(2)}
    assert [name for name, _ in messages.values()] == ["a", "a"]
    _, reply = messages.pop(())
    ((_, answer),) = messages.values()
    assert reply.final
    assert (answer.error, answer.final) == ("", True)
    made = len(answer.tokens)
    assert 0 < made < LONG
    assert answer.tokens == reference[:made]
    last = answer.last
    assert last["num_output_tokens"].tolist() == [[made]]
    scheduled, first, ended, blocks = (int(last[name][0, 0]) for name in FIGURES)
    assert 0 < scheduled <= first <= ended
    assert blocks == -(-(len(PROMPT) + made - 1) // 32)
    if log_probs:
        assert last["output_log_probs"].shape == (1, 1, made)
    else:
        assert "output_log_probs" not in last


def test_an_echoed_prompt_comes_with_a_stopped_answer_too(server: Triton) -> None:
    with SharedStream(server) as stream:
        give(stream, server, whole(server, "a", exclude_input_in_output=None))
        with beside(server):
            stream.send(stop(server, "a"))
            (tokens,) = [answer.tokens for _, answer in stream.take(2) if answer.last]
    assert tokens[: len(PROMPT)] == PROMPT
    assert len(tokens) > len(PROMPT)


def test_a_request_stopped_while_it_waits_never_runs(server: Triton) -> None:
    with SharedStream(server) as stream, beside(server), beside(server):
        stream.send(whole(server, "a"), stop(server, "a"))
        answers = {bool(answer.last): answer for _, answer in stream.take(2)}
    assert answers[True].final
    assert answers[True].tokens == []
    assert answers[True].last.keys().isdisjoint(FIGURES)


def test_stopping_twice_late_or_what_never_came_is_harmless(server: Triton) -> None:
    with SharedStream(server) as stream:
        stream.send(stop(server, "nobody"))
        assert [(name, answer.responses) for name, answer in stream.take(1)] == [("nobody", [{}])]

        with beside(server):
            stream.send(server.request(PROMPT, 5, request_id="short", streaming=False))
            ((_, short),) = stream.take(1)
            assert len(short.tokens) == 5
            stream.send(stop(server, "short"), whole(server, "long"))
            stream.send(*[stop(server, "long") for _ in range(3)])
            replies = stream.take(5)
        assert sorted(name for name, _ in replies) == [*["long"] * 4, "short"]
        assert all(reply.final and not reply.error for _, reply in replies)
        assert sum(bool(reply.last) for _, reply in replies) == 1
    assert len(server.generate(PROMPT, 3).tokens) == 3


def test_the_reply_to_a_stop_needs_no_leave_to_be_empty(server: Triton) -> None:
    request = stop(server, "nobody")
    del request.parameters["triton_enable_empty_final_response"]
    with SharedStream(server) as stream:
        stream.send(request)
        ((_, reply),) = stream.take(1)
    assert reply.final


def test_a_stop_without_an_id_is_refused_and_ends_nobody(server: Triton) -> None:
    request = stop(server, "x")
    request.id = ""
    nameless = server.request(PROMPT, 200, streaming=False)
    nameless.id = ""
    with SharedStream(server) as stream:
        give(stream, server, nameless)
        with beside(server):
            stream.send(request)
            answers = [answer for _, answer in stream.take(2)]
    texts = [answer.error for answer in answers if answer.error]
    assert texts == ["Trying to stop a request but request ID is not provided"]
    assert [len(answer.tokens) for answer in answers if not answer.error] == [200]


# Counters


def steps_made(server: Triton) -> float:
    return server.metrics()['nv_trt_llm_general_metrics{general_type="iteration_counter"}']


def added(server: Triton, before: tuple[int, int]) -> tuple[int, int]:
    prompts, made = server.counted()
    return prompts - before[0], made - before[1]


@pytest.mark.parametrize("streaming", [True, False])
def test_the_counters_are_what_was_received_once_the_last_response_is_there(
    server: Triton, reference: list[int], *, streaming: bool
) -> None:
    never = [2047, 2046]
    word = [*never, *reference[7:9]]
    requests: list[dict[str, Any]] = [
        {"tokens": 30},
        {"tokens": 30, "end_id": reference[12]},
        {"tokens": 40, "stop_words_list": [[word, [2, 4, -1, -1]]]},
        {"tokens": 1},
        {"tokens": 20, "exclude_input_in_output": None if streaming else False},
    ]
    for options in requests:
        before = server.counted()
        answer = server.generate(PROMPT, streaming=streaming, **options)
        echoed = len(PROMPT) if options.get("exclude_input_in_output") is False else 0
        assert added(server, before) == (len(PROMPT), len(answer.tokens) - echoed)


def test_the_counters_are_what_stopped_requests_received(server: Triton) -> None:
    before = server.counted()
    call, streamed = start(server, PROMPT, LONG, request_id="b")
    with SharedStream(server) as stream:
        stream.send(whole(server, "a"), stop(server, "a"), stop(server, "b"))
        answers = [answer for _, answer in stream.take(3)]
    finish(call, streamed)
    received = sum(len(answer.tokens) for answer in [*answers, streamed])
    assert added(server, before) == (2 * len(PROMPT), received)


@pytest.mark.parametrize("streaming", [True, False])
def test_the_counters_know_what_was_made_for_callers_who_left(
    server: Triton, *, streaming: bool
) -> None:
    before, steps = server.counted(), steps_made(server)
    if streaming:
        call, answer = start(server, PROMPT, LONG)
    else:
        call, answer = server.stub.ModelStreamInfer(iter([whole(server, "a")])), Answer()
        until(lambda: steps_made(server) > steps)
    call.cancel()
    until(lambda: added(server, before)[1] > 0)
    prompts, made = added(server, before)
    assert prompts == len(PROMPT)
    assert max(1, len(answer.tokens)) <= made < LONG
    # Alone in the engine a request makes a token a step; one more step frees its blocks.
    until(lambda: steps_made(server) == steps + made + 1)


def test_what_never_ran_is_not_counted(server: Triton) -> None:
    before = server.counted()
    assert server.generate([5000], 5).error
    assert server.generate([1], 1, request_id="nobody", stop=True).final
    assert added(server, before) == (0, 0)
