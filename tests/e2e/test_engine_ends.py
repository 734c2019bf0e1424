"""How requests end before their time behind a real Triton, and that every token is counted."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.triton_fixtures import Answer, Held, SharedStream, Triton, finish, start, until

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


def test_hanging_up_reaches_the_engine(server: Triton) -> None:
    call, _ = start(server, PROMPT, LONG)
    until(lambda: server.active() == 1)
    call.cancel()
    assert until(lambda: server.active() == 0) < 0.3  # 0.1 of it is how often metrics come
    used = 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used"}'
    until(lambda: server.metrics()[used] == 0)


def take_reply(stream: SharedStream, request_id: str) -> None:
    """The reply to a stop has the id of what it stops, and no tensors."""
    ((name, reply),) = stream.take(1)
    assert name == request_id
    assert (reply.error, reply.final, reply.responses) == ("", True, [{}])


def test_a_stopped_stream_ends_with_what_it_has(server: Triton, reference: list[int]) -> None:
    with SharedStream(server) as stream, Held(server) as engine:
        request = server.request(
            PROMPT, LONG, request_id="a", return_perf_metrics=True, outputs=FIGURES
        )
        call = server.stub.ModelStreamInfer(iter([request]))
        engine.run()
        stream.send(stop(server, "a"))
        take_reply(stream, "a")
    answer = finish(call, Answer())
    assert (answer.error, answer.final) == ("", True)
    assert 0 < len(answer.tokens) < LONG
    assert answer.tokens == reference[: len(answer.tokens)]
    assert set(FIGURES) <= answer.last.keys()


@pytest.mark.parametrize("log_probs", [True, False])
def test_a_stopped_whole_answer_says_how_far_it_came(
    server: Triton, reference: list[int], *, log_probs: bool
) -> None:
    with SharedStream(server) as stream:
        with Held(server) as engine:
            stream.send(whole(server, "a", return_log_probs=log_probs))
            engine.run()
            stream.send(stop(server, "a"))
            take_reply(stream, "a")
        ((name, answer),) = stream.take(1)
    assert name == "a"
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
        with Held(server) as engine:
            stream.send(whole(server, "a", exclude_input_in_output=None))
            engine.run()
            stream.send(stop(server, "a"))
            take_reply(stream, "a")
        ((_, answer),) = stream.take(1)
    assert answer.tokens[: len(PROMPT)] == PROMPT
    assert len(PROMPT) < len(answer.tokens) < LONG


def test_a_request_stopped_while_it_waits_never_runs(server: Triton) -> None:
    with SharedStream(server) as stream:
        with Held(server):
            stream.send(*[whole(server, name) for name in "abc"], stop(server, "c"))
            take_reply(stream, "c")
            for name in "ab":
                stream.send(stop(server, name))
                take_reply(stream, name)
        answers = dict(stream.take(3))
    assert answers["c"].final
    assert answers["c"].tokens == []
    assert answers["c"].last.keys().isdisjoint(FIGURES)


def test_stopping_twice_late_or_what_never_came_is_harmless(server: Triton) -> None:
    with SharedStream(server) as stream:
        stream.send(stop(server, "nobody"))
        take_reply(stream, "nobody")
        stream.send(server.request(PROMPT, 5, request_id="short", streaming=False))
        ((_, short),) = stream.take(1)
        assert len(short.tokens) == 5
        with Held(server) as engine:
            stream.send(whole(server, "long"))
            engine.run()
            for name in ("short", "long", "long", "long"):
                stream.send(stop(server, name))
                take_reply(stream, name)
        ((name, answer),) = stream.take(1)
        assert (name, answer.error) == ("long", "")
        assert 0 < len(answer.tokens) < LONG
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
        stream.send(nameless, request)
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
    with SharedStream(server) as stream:
        with Held(server) as engine:
            stream.send(whole(server, "a"))
            call = server.stub.ModelStreamInfer(
                iter([server.request(PROMPT, LONG, request_id="b")])
            )
            until(lambda: server.active() == 2)
            engine.run()
            for name in "ab":
                stream.send(stop(server, name))
                take_reply(stream, name)
        ((_, answer),) = stream.take(1)
    streamed = finish(call, Answer())
    received = len(answer.tokens), len(streamed.tokens)
    assert all(0 < tokens < LONG for tokens in received)
    assert added(server, before) == (2 * len(PROMPT), sum(received))


@pytest.mark.parametrize("streaming", [True, False])
def test_the_counters_know_what_was_made_for_callers_who_left(
    server: Triton, *, streaming: bool
) -> None:
    before, steps = server.counted(), steps_made(server)

    def counted() -> bool:
        return added(server, before)[1] > 0

    def counted_after_some_work() -> bool:
        engine.run(0.01, counted)
        return counted()

    with Held(server) as engine:
        request = server.request(PROMPT, LONG) if streaming else whole(server, "a")
        call = server.stub.ModelStreamInfer(iter([request]))
        engine.run()
        call.cancel()
        until(counted_after_some_work)
    prompts, made = added(server, before)
    assert prompts == len(PROMPT)
    assert 0 < made < LONG
    # Alone in the engine a request makes a token a step; one more step frees its blocks.
    until(lambda: steps_made(server) == steps + made + 1)


def test_what_never_ran_is_not_counted(server: Triton) -> None:
    before = server.counted()
    assert server.generate([5000], 5).error
    assert server.generate([1], 1, request_id="nobody", stop=True).final
    assert added(server, before) == (0, 0)
