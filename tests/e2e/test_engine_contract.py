"""The CPU engine behind a real Triton keeps TensorRT-LLM's contract."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import openvino as ov
import psutil
import pytest
from tritonclient.grpc import service_pb2

from engines.cpu.process.guided import token_bytes
from tests.e2e.triton_fixtures import (
    END_ID,
    REPOSITORY,
    Answer,
    Held,
    Triton,
    collect,
    finish,
    read,
    start,
    until,
)

PROMPT = [1, 4, 100, 200, 300, 5]
FIGURES = (
    "arrival_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "kv_cache_alloc_new_blocks",
    "kv_cache_reused_blocks",
    "kv_cache_alloc_total_blocks",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def triton(directory: Path) -> Iterator[Triton]:
    with Triton(directory) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def slow(directory: Path) -> Iterator[Triton]:
    """The large model with room for two at a time and one who waits: easy to fill."""
    parameters = {
        "max_batch": "2",
        "max_queue_size": "1",
        "kv_cache_blocks": "64",
        "max_responses_per_second": "100000",
    }
    with Triton(directory, "large", parameters=parameters) as server:
        server.wait_ready()
        yield server


def forward(weights: Path, prompt: list[int], tokens: list[int]) -> npt.NDArray[np.float64]:
    """The log-prob of each of these tokens after the prompt, by the model without the engine."""
    graph = ov.Core().compile_model(
        weights / "openvino_model.xml",
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    ids = np.array([[*prompt, *tokens]], np.int64)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.size, dtype=np.int64)[np.newaxis],
        "beam_idx": np.zeros(1, np.int32),
    }
    logits = graph(inputs)["logits"][0, len(prompt) - 1 : -1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    true: npt.NDArray[np.float64] = logits[np.arange(len(tokens)), tokens]
    return true


# Streams and whole answers


def test_a_stream_is_deltas_and_the_last_one_carries_the_flag(triton: Triton) -> None:
    answer = triton.generate(PROMPT, 30)
    assert not answer.error
    assert answer.flags == [False] * (len(answer.flags) - 1) + [True]
    assert len(answer.tokens) == 30
    for response in answer.responses:
        assert response["output_ids"].shape == (1, 1, response["sequence_length"][0, 0])


def test_a_stream_begins_long_before_its_answer_is_made(slow: Triton) -> None:
    # What has piled up travels as one response, so a short answer may be one; here the engine
    # stands still in the middle.
    with Held(slow) as engine:
        call = slow.stub.ModelStreamInfer(iter([slow.request(PROMPT, 900)]))
        engine.run()
        answer = Answer()
        read(next(call), answer)
        assert not answer.final
        assert 0 < len(answer.tokens) < 900
    finish(call, answer)
    assert answer.flags == [False] * (len(answer.flags) - 1) + [True]
    assert len(answer.tokens) == 900


def test_a_whole_answer_is_one_response_with_the_same_tokens(triton: Triton) -> None:
    whole = triton.generate(PROMPT, 30, streaming=False)
    assert len(whole.responses) == 1
    assert whole.final
    assert whole.tokens == triton.generate(PROMPT, 30).tokens


def test_a_whole_answer_repeats_the_prompt_unless_asked_not_to(triton: Triton) -> None:
    plain = triton.generate(PROMPT, 5, streaming=False, exclude_input_in_output=None)
    assert plain.tokens[: len(PROMPT)] == PROMPT
    assert len(plain.tokens) == len(PROMPT) + 5


def test_log_probs_are_the_whole_list_so_far_and_their_sum(triton: Triton) -> None:
    answer = triton.generate(PROMPT, 20, return_log_probs=True)
    seen: list[float] = []
    tokens = 0
    for response in answer.responses:
        tokens += int(response["sequence_length"][0, 0])
        values = response["output_log_probs"][0, 0].tolist()
        assert len(values) == tokens
        assert values[: len(seen)] == seen
        assert response["cum_log_probs"][0, 0] == pytest.approx(sum(values), rel=1e-5, abs=1e-6)
        seen = values
    assert tokens == 20
    assert all(value <= 0 for value in seen)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_log_probs_are_those_of_the_model_itself(slow: Triton, temperature: float) -> None:
    options = {"runtime_top_k": 50, "temperature": temperature, "seed": 7}
    answer = slow.generate(PROMPT, 60, return_log_probs=True, streaming=False, **options)
    true = forward(REPOSITORY / "large" / "weights" / "int8", PROMPT, answer.tokens)
    sent = answer.last["output_log_probs"][0, 0]
    # The engine keeps keys and values in 8 bits, and rounds activations for 8-bit weights.
    assert sent == pytest.approx(true, rel=0.1, abs=0.1)
    assert all(true[sent == 0.0] > -1e-5), "sent as certain and is not"
    assert answer.last["cum_log_probs"][0, 0] == pytest.approx(sent.sum(), rel=1e-4)


def test_a_guide_makes_no_token_certain(triton: Triton) -> None:
    answer = guided(triton, "ebnf_grammar", 'root ::= "zebra"', return_log_probs=True)
    assert spell(answer.tokens) == "zebra"
    assert all(value < -1 for value in answer.last["output_log_probs"][0, 0])


def test_log_probs_that_were_not_asked_for_are_not_sent(triton: Triton) -> None:
    names = ["output_log_probs", "cum_log_probs"]
    for changes in ({}, {"return_log_probs": False}):
        answer = triton.generate(PROMPT, 5, outputs=names, **changes)
        assert not answer.error
        assert all(response.keys().isdisjoint(names) for response in answer.responses)


def test_log_probs_do_not_change_with_temperature(triton: Triton) -> None:
    forced = {"runtime_top_k": 1, "return_log_probs": True, "streaming": False}
    plain = triton.generate(PROMPT, 10, **forced)
    hot = triton.generate(PROMPT, 10, temperature=2.0, **forced)
    assert hot.last["output_log_probs"].tolist() == plain.last["output_log_probs"].tolist()


def test_token_counts_are_those_of_each_response(triton: Triton) -> None:
    answer = triton.generate(
        PROMPT,
        20,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
        outputs=["num_input_tokens", "num_output_tokens"],
    )
    assert {int(r["num_input_tokens"][0, 0]) for r in answer.responses} == {len(PROMPT)}
    assert sum(int(r["num_output_tokens"][0, 0]) for r in answer.responses) == 20


def test_figures_come_last_and_times_are_in_order(triton: Triton) -> None:
    prompt = [1, 4, *range(600, 700), 5]
    first = triton.generate(prompt, 10, return_perf_metrics=True, outputs=FIGURES)
    again = triton.generate(prompt, 10, return_perf_metrics=True, outputs=FIGURES)
    assert all("arrival_time_ns" not in response for response in first.responses[:-1])
    times = [int(first.last[name][0, 0]) for name in FIGURES[:4]]
    assert times == sorted(times)
    assert times[-1] - times[0] < 5e9
    new, reused, total = (int(again.last[name][0, 0]) for name in FIGURES[4:])
    assert total == 4
    assert reused >= 3
    assert new == total - reused
    assert int(first.last["kv_cache_reused_blocks"][0, 0]) == 0


def test_outputs_that_cannot_be_had_are_left_out(triton: Triton) -> None:
    answer = triton.generate(
        PROMPT, 5, return_perf_metrics=True, outputs=["acceptance_rate", "arrival_time_ns"]
    )
    assert not answer.error
    assert "arrival_time_ns" in answer.last
    assert "acceptance_rate" not in answer.last


# Sampling


def sampled(server: Triton, seed: int | None) -> list[int]:
    return server.generate(
        PROMPT, 24, streaming=False, runtime_top_k=50, temperature=1.5, seed=seed
    ).tokens


def test_a_seed_gives_the_same_answer_alone_and_in_any_batch(triton: Triton) -> None:
    alone = sampled(triton, 7)
    assert sampled(triton, 7) == alone
    assert sampled(triton, 8) != alone
    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(sampled, triton, seed) for seed in range(100, 108)]
        same = [pool.submit(sampled, triton, 7) for _ in range(4)]
        assert [future.result() for future in same] == [alone] * 4
        assert len({tuple(future.result()) for future in others}) > 1


def test_without_a_seed_answers_differ(triton: Triton) -> None:
    # The likeliest answer comes one time in ten: ten of it in a row would be no chance.
    assert len({tuple(sampled(triton, None)) for _ in range(10)}) > 1


def test_penalties_change_the_answer(triton: Triton) -> None:
    plain = triton.generate(PROMPT, 60, streaming=False).tokens
    penalised = triton.generate(
        PROMPT, 60, streaming=False, repetition_penalty=1.5, frequency_penalty=1.0
    ).tokens
    assert len(set(penalised)) > len(set(plain))


# Ends


def reference(server: Triton, length: int = 40) -> list[int]:
    return server.generate(PROMPT, length, streaming=False).tokens


def cut(tokens: list[int], word: list[int]) -> list[int]:
    """What comes before the first occurrence of a stop sequence."""
    for end in range(len(word), len(tokens) + 1):
        if tokens[end - len(word) : end] == word:
            return tokens[: end - len(word)]
    raise AssertionError("the word does not occur")


def test_the_end_token_ends_the_answer_and_is_not_in_it(triton: Triton) -> None:
    tokens = reference(triton)
    end = tokens[12]
    answer = triton.generate(PROMPT, 40, end_id=end, return_log_probs=True)
    assert answer.tokens == cut(tokens, [end])
    assert answer.last["output_log_probs"].shape[2] == len(answer.tokens)


def test_without_an_end_token_the_answer_runs_to_its_length(triton: Triton) -> None:
    # The models end almost every answer with this token: -1 must switch it off.
    assert len(triton.generate(PROMPT, 200, end_id=-1, streaming=False).tokens) == 200


def test_min_tokens_puts_the_end_off(triton: Triton) -> None:
    end = reference(triton)[0]
    assert triton.generate(PROMPT, 40, end_id=end).tokens == []
    assert len(triton.generate(PROMPT, 40, end_id=end, min_tokens=6).tokens) >= 6


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_stop_words_end_the_answer_and_are_not_in_it(
    triton: Triton, size: int, *, streaming: bool
) -> None:
    tokens = reference(triton)
    word = tokens[10 : 10 + size]
    never = [2047, 2046]
    ids = [*never, *word]
    ends = [len(never), len(ids), *[-1] * (len(ids) - 2)]
    answer = triton.generate(PROMPT, 40, stop_words_list=[[ids, ends]], streaming=streaming)
    assert answer.tokens == cut(tokens, word)
    assert answer.final


# Refusals

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": []}, "Invalid request: input_ids must hold at least one token"),
    ({"tokens": 1020}, "exceeds max_seq_len (1024)"),
    ({"tokens": -1}, "Invalid request: request_output_len must be at least 1, not -1"),
    ({"prompt": [5000]}, "Invalid request: input_ids must be from 0 to 2047, not 5000"),
    ({"beam_width": 4}, "Invalid request: beam_width must be 1 on the CPU engine"),
    ({"bad_words_list": [[[5], [1]]]}, "bad_words_list has no equivalent on the CPU engine"),
    ({"embedding_bias": [[0.5] * 2048]}, "embedding_bias has no equivalent on the CPU engine"),
    ({"return_generation_logits": True}, "logits cannot be had from the CPU engine"),
    ({"temperature": float("inf")}, "Invalid request: temperature must be from 0.0"),
]


@pytest.mark.parametrize(("changes", "text"), REFUSALS)
def test_what_cannot_be_run_is_refused_in_words(
    triton: Triton, changes: dict[str, Any], text: str
) -> None:
    answer = triton.generate(**{"prompt": PROMPT, "tokens": 10, **changes})
    assert text in answer.error
    assert not triton.generate(PROMPT, 3).error


def test_triton_itself_refuses_tensors_that_are_not_declared(triton: Triton) -> None:
    request = triton.request(PROMPT, 10)
    request.inputs[0].shape[:] = [1, 1, len(PROMPT)]
    assert "unexpected shape" in collect(triton.stub.ModelStreamInfer(iter([request]))).error


def test_a_full_queue_speaks_as_tensorrt_llm_does(slow: Triton) -> None:
    calls = [start(slow, [1, 2, 3], 900) for _ in range(2)]
    waiting = slow.stub.ModelStreamInfer(iter([slow.request([1, 2, 3], 5)]))
    until(lambda: slow.metrics()['nv_trt_llm_request_metrics{request_type="waiting"}'] == 1)
    refused = slow.generate([1, 2, 3], 5)
    assert "Maximum queue size of 1 has been reached, please try again later" in refused.error
    for call, _ in calls:
        call.cancel()
    assert len(collect(waiting).tokens) == 5
    until(lambda: slow.active() == 0)


# Guided decoding


def guided(server: Triton, kind: str, guide: str, **options: Any) -> Answer:
    return server.generate(
        PROMPT,
        60,
        streaming=False,
        end_id=END_ID,
        guided_decoding_guide_type=kind,
        guided_decoding_guide=guide,
        **options,
    )


def spell(tokens: list[int]) -> str:
    path = REPOSITORY / "small" / "weights" / "int8" / "tokenizer.json"
    spelled = token_bytes(json.loads(path.read_text()))
    return b"".join(spelled[token] for token in tokens).decode()


def test_an_answer_follows_a_regular_expression(triton: Triton) -> None:
    assert spell(guided(triton, "regex", "[a-c]{3}-(yes|no)").tokens) in {
        f"{a}{b}{c}-{word}" for a in "abc" for b in "abc" for c in "abc" for word in ("yes", "no")
    }


def test_an_answer_follows_a_grammar(triton: Triton) -> None:
    assert spell(guided(triton, "ebnf_grammar", 'root ::= "left" | "right"').tokens) in {
        "left",
        "right",
    }


def test_an_answer_follows_a_json_schema(triton: Triton) -> None:
    assert spell(guided(triton, "json_schema", '{"enum": ["x", "y", "zebra"]}').tokens) in {
        '"x"',
        '"y"',
        '"zebra"',
    }


def test_a_grammar_that_does_not_compile_hurts_nobody_else(triton: Triton) -> None:
    call, answer = start(triton, PROMPT, 300)
    for kind, guide in (("regex", "[a-"), ("json_schema", "{no"), ("ebnf_grammar", "root ::= x")):
        refused = guided(triton, kind, guide)
        assert refused.error.find("Invalid request: guided_decoding_guide does not compile") >= 0
    assert len(finish(call, answer).tokens) == 300


# In-flight batching and metrics


def test_a_request_joins_the_running_batch(slow: Triton) -> None:
    call, answer = start(slow, [1, 2, 3], 600)
    joined = slow.generate([1, 2, 3], 20)
    ended = time.monotonic()
    assert len(joined.tokens) == 20
    finish(call, answer)
    assert len(answer.tokens) == 600
    after = sum(at > ended for at in answer.at)
    assert after > 10, "the first one was made to wait, or the second"


def test_the_metric_families_and_their_labels(triton: Triton) -> None:
    triton.generate(PROMPT, 5)
    samples = triton.metrics()
    expected = {
        'nv_trt_llm_request_metrics{request_type="%s"}': (
            "active",
            "max",
            "scheduled",
            "context",
            "waiting",
        ),
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="%s"}': (
            "max",
            "free",
            "used",
            "tokens_per",
            "reused",
            "fraction",
        ),
        'nv_trt_llm_general_metrics{general_type="%s"}': ("timestamp", "iteration_counter"),
        'nv_trt_llm_inflight_batcher_metrics{inflight_batcher_specific_metric="%s"}': (
            "generation_requests",
            "total_context_tokens",
            "micro_batch_id",
            "paused_requests",
        ),
        'nv_llm_input_token_len_count{response_metric_type="%s"}': ("total_input_tokens",),
        'nv_llm_output_token_len_count{response_metric_type="%s"}': ("total_output_tokens",),
    }
    for pattern, kinds in expected.items():
        assert {pattern % kind for kind in kinds} <= samples.keys()
    assert samples['nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"}'] == 32
    assert samples['nv_trt_llm_request_metrics{request_type="max"}'] == 64


def test_metrics_follow_the_load_and_end_at_zero(slow: Triton) -> None:
    def steps() -> float:
        return slow.metrics()['nv_trt_llm_general_metrics{general_type="iteration_counter"}']

    before = steps()
    with Held(slow) as engine:
        requests = [slow.request([1, 2, 3], 400) for _ in range(2)]
        calls = [slow.stub.ModelStreamInfer(iter([request])) for request in requests]
        until(lambda: slow.active() == 2)
        engine.run()
        until(lambda: slow.metrics()['nv_trt_llm_request_metrics{request_type="scheduled"}'] == 2)
        during = slow.metrics()
    assert during['nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used"}'] == 26
    assert during['nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}'] == (
        pytest.approx(26 / 64)
    )
    for call in calls:
        assert len(collect(call).tokens) == 400
    until(lambda: slow.active() == 0)
    free = 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="free"}'
    until(lambda: slow.metrics()[free] == 64)
    until(lambda: steps() - before >= 400)  # a page may be read between two of its numbers
    assert steps() - before < 900, "two answers of 400 tokens share their steps"


# Closed doors


def test_the_repository_protocol_is_closed(triton: Triton) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        triton.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    assert "restricted" in str(caught.value.details())
    ready = triton.stub.ModelReady(service_pb2.ModelReadyRequest(name="small"))
    assert ready.ready


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def raw_call(server: Triton, method: str, request: bytes, headers: dict[str, str]) -> bool:
    """Whether a call is answered with a message; its headers are sent as no gRPC library would."""
    told = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/inference.GRPCInferenceService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **headers,
    }
    fields = b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in told.items()
    )
    message = b"\0" + struct.pack(">I", len(request)) + request
    with socket.create_connection(("127.0.0.1", server.launch.grpc_port), timeout=10) as wire:
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        wire.sendall(frame(1, 4, 1, fields) + frame(0, 1, 1, message))
        read = wire.makefile("rb")
        answered = False
        while len(head := read.read(9)) == 9:
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            read.read(length)
            on_stream = head[5:] == b"\0\0\0\1"
            answered = answered or (kind == 0 and on_stream)
            if kind in (3, 7) or (kind in (0, 1) and on_stream and flags & 1):
                break  # reset, gone away, or the end of the answer
        return answered


def test_whoever_reads_the_command_line_cannot_use_what_is_closed(triton: Triton) -> None:
    server = psutil.Process(triton.process.pid)
    (flag,) = [one for one in server.cmdline() if one.startswith("--grpc-restricted-protocol=")]
    name, _, value = flag.rpartition(":")[2].partition("=")
    model = service_pb2.ModelReadyRequest(name="small").SerializeToString()
    assert raw_call(triton, "ModelReady", model, {}), "the test can speak"
    for known in (name, name.lower(), f"triton-grpc-protocol-{name}"):
        for told in (known, known.lower()):
            assert not raw_call(triton, "RepositoryIndex", b"", {told: value})
    with pytest.raises(grpc.RpcError):
        triton.stub.LogSettings(service_pb2.LogSettingsRequest())
    assert triton.stub.ServerReady(service_pb2.ServerReadyRequest()).ready


def test_the_model_declares_itself_as_the_contract_has_it(triton: Triton) -> None:
    config = triton.stub.ModelConfig(service_pb2.ModelConfigRequest(name="small")).config
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size > 0
    assert {"input_ids", "streaming", "draft_input_ids"} <= {t.name for t in config.input}
