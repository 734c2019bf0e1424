"""Tensors of requests and answers, and what the replica's messages mean."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from engines.cpu.process.unproven import TOO_FULL, TOO_MANY, TRUST_LOST
from services.common.errors import BadRequest, InternalError, Overloaded
from services.router.engines.trtllm import (
    TOKENS_PER_BLOCK,
    Encoder,
    classify,
    decode,
    unpack_log_probs,
)
from services.router.policy.prompts import Message
from services.router.policy.routes import Tier
from services.router.ports import Asked, EngineRequest, GuideKind, Prompt, ReplicaFailed
from tests.making.policies import tier

LOST, FULL, BAD, BROKEN = "another replica, lost", "another replica, full", "bad input", "broken"


class Text:
    """Stands for a tokenizer: one token a character."""

    end_id, pad_id = 2, 0

    def encode_plain(self, text: str) -> list[int]:
        return [ord(one) for one in text]


def asked(**changes: Any) -> Asked:
    told: dict[str, Any] = {
        "messages": (Message("user", "hi"),),
        "guide": None,
        "max_output_tokens": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": None,
        "stop": (),
    }
    return Asked(**(told | changes))


def encoder(small: Tier | None = None) -> Encoder:
    return Encoder(small or tier("small"), Text())  # type: ignore[arg-type]


def sent(request: pb.ModelInferRequest) -> dict[str, tuple[str, list[int], bytes]]:
    """Datatype, shape and bytes of each tensor."""
    return {
        one.name: (one.datatype, list(one.shape), raw)
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def wanted(
    *prompt: int, streaming: bool = True, log_probs: bool = False, **changes: Any
) -> EngineRequest:
    """What the router wants of a replica."""
    return EngineRequest(
        tier=tier("small"),
        text=Text(),  # type: ignore[arg-type]
        prompt=Prompt((), prompt or (5, 6)),
        asked=asked(**changes),
        max_output_tokens=7,
        request_id="id",
        streaming=streaming,
        log_probs=log_probs,
        deadline_seconds=1.0,
    )


def encoded(**changes: Any) -> dict[str, tuple[str, list[int], bytes]]:
    return sent(encoder().request(wanted(**changes), "id"))


def test_beside_a_guide_engines_learn_which_requests_are_of_one_tenant() -> None:
    def source(tenant: str, guide: tuple[GuideKind, str] | None) -> str:
        request = replace(wanted(guide=guide), tenant=tenant)
        return str(encoder().request(request, "id").parameters["pennyweight_source"].string_param)

    one, other = ("acme", (GuideKind.REGEX, "a")), ("globex", (GuideKind.REGEX, "a"))
    assert source(*one) == source("acme", (GuideKind.JSON_SCHEMA, "{}")) != source(*other)
    assert "acme" not in source(*one)
    assert source("acme", None) == ""


def test_a_request_sends_what_the_engine_wants() -> None:
    request = encoder().request(wanted(5, 6, 7), "id")
    assert (request.model_name, request.id) == ("small", "id")
    assert request.parameters["triton_enable_empty_final_response"].bool_param
    tensors = sent(request)
    assert tensors["input_ids"] == ("INT32", [1, 3], struct.pack("<3i", 5, 6, 7))
    assert tensors["input_lengths"] == ("INT32", [1, 1], struct.pack("<i", 3))
    assert tensors["request_output_len"] == ("INT32", [1, 1], struct.pack("<i", 7))
    assert tensors["end_id"] == ("INT32", [1, 1], struct.pack("<i", 2))
    assert tensors["pad_id"] == ("INT32", [1, 1], struct.pack("<i", 0))
    assert tensors["streaming"] == ("BOOL", [1, 1], b"\1")
    assert tensors["exclude_input_in_output"] == ("BOOL", [1, 1], b"\1")
    assert "stop_words_list" not in tensors
    assert "guided_decoding_guide" not in tensors
    assert {"output_ids", "sequence_length"} <= {one.name for one in request.outputs}


def test_a_whole_answer_is_not_streamed() -> None:
    assert encoded(streaming=False)["streaming"] == ("BOOL", [1, 1], b"\0")


def test_greedy_is_the_most_likely_token_at_temperature_1() -> None:
    tensors = encoded(temperature=0.0, top_k=50)
    assert tensors["runtime_top_k"] == ("INT32", [1, 1], struct.pack("<i", 1))
    assert tensors["temperature"] == ("FP32", [1, 1], struct.pack("<f", 1.0))


def test_sampling_is_passed_on() -> None:
    tensors = encoded(temperature=0.5, top_k=50, top_p=0.9, seed=2**64 - 1)
    assert tensors["temperature"][2] == struct.pack("<f", 0.5)
    assert tensors["runtime_top_k"][2] == struct.pack("<i", 50)
    assert tensors["runtime_top_p"][2] == struct.pack("<f", 0.9)
    assert tensors["seed"] == ("UINT64", [1, 1], struct.pack("<Q", 2**64 - 1))


def test_a_seed_of_0_is_kept_and_without_one_each_request_draws_its_own() -> None:
    assert encoded(seed=0)["seed"][2] == struct.pack("<Q", 0)
    assert len({encoded()["seed"][2] for _ in range(10)}) == 10


def word_list(raw: bytes) -> list[list[int]]:
    """The words as TensorRT-LLM reads them: ids in one row, ends in the other."""
    values = struct.unpack(f"<{len(raw) // 4}i", raw)
    ids, ends = values[: len(values) // 2], values[len(values) // 2 :]
    words, start = [], 0
    for end in ends:
        if end < 0:
            break
        words.append(list(ids[start:end]))
        start = end
    return words


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=8))
def test_stop_texts_become_a_word_list(stops: list[str]) -> None:
    datatype, shape, raw = encoded(stop=tuple(stops))["stop_words_list"]
    count = sum(map(len, stops))
    assert (datatype, shape, len(raw)) == ("INT32", [1, 2, count], 8 * count)
    assert word_list(raw) == [[ord(one) for one in stop] for stop in stops]


def test_a_word_list_is_padded_with_minus_1() -> None:
    _, _, raw = encoded(stop=("ab", "c"))["stop_words_list"]
    assert struct.unpack("<6i", raw) == (97, 98, 99, 2, 3, -1)


@pytest.mark.parametrize(
    "guide", [(GuideKind.JSON_SCHEMA, '{"const": "é"}'), (GuideKind.REGEX, "é")]
)
def test_engines_are_told_the_grammar_that_was_made_before(guide: tuple[GuideKind, str]) -> None:
    rules = 'root ::= "é"'
    tensors = encoded(guide=guide, grammar=rules)
    for name, text in (
        ("guided_decoding_guide_type", "ebnf_grammar"),
        ("guided_decoding_guide", rules),
    ):
        datatype, shape, raw = tensors[name]
        assert (datatype, shape) == ("BYTES", [1, 1])
        assert raw == struct.pack("<I", len(text.encode())) + text.encode()


def test_requests_do_not_share_anything() -> None:
    one = encoder()
    first = one.request(wanted(1, stop=("x",)), "1")
    second = one.request(wanted(1, 2), "2")
    assert "stop_words_list" not in sent(second)
    assert sent(first)["input_ids"][1] == [1, 1]
    assert sent(second)["input_ids"][1] == [1, 2]


def test_a_stop_names_the_request_and_has_the_tensors_that_must_be_there() -> None:
    stop = encoder().stop("id")
    tensors = sent(stop)
    assert (stop.id, stop.model_name) == ("id", "small")
    assert tensors["stop"] == ("BOOL", [1, 1], b"\1")
    assert {"input_ids", "input_lengths", "request_output_len"} <= tensors.keys()


def message(*, final: bool | None = None, **tensors: bytes) -> pb.ModelStreamInferResponse:
    told = pb.ModelStreamInferResponse()
    for name, raw in tensors.items():
        told.infer_response.outputs.add(name=name)
        told.infer_response.raw_output_contents.append(raw)
    if final is not None:
        told.infer_response.parameters["triton_final_response"].bool_param = final
    return told


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def test_tokens_are_as_many_as_the_length_says() -> None:
    chunk = decode(message(output_ids=ints(7, 8, 9), sequence_length=ints(2), final=False))
    assert (list(chunk.tokens), chunk.final, chunk.figures) == ([7, 8], False, None)


def test_a_final_response_brings_figures() -> None:
    chunk = decode(
        message(
            final=True,
            output_ids=ints(7),
            sequence_length=ints(1),
            kv_cache_reused_blocks=ints(3),
            first_scheduled_time_ns=struct.pack("<q", 1_000_000_000),
            last_token_time_ns=struct.pack("<q", 1_500_000_000),
        )
    )
    assert (list(chunk.tokens), chunk.final) == ([7], True)
    assert chunk.figures is not None
    assert chunk.figures.engine_seconds == 0.5
    assert chunk.figures.reused_prompt_tokens == 3 * TOKENS_PER_BLOCK


@pytest.mark.parametrize(
    "told",
    [
        message(final=True),
        message(final=True, output_ids=b"", sequence_length=ints(0)),
        message(final=True, sequence_length=ints(4)),
    ],
)
def test_an_empty_final_response_ends_the_answer(told: pb.ModelStreamInferResponse) -> None:
    chunk = decode(told)
    assert (list(chunk.tokens), chunk.final) == ([], True)
    assert chunk.figures is not None
    assert chunk.figures.engine_seconds is None
    assert chunk.figures.reused_prompt_tokens is None


def test_a_response_without_the_parameter_is_not_the_last() -> None:
    assert not decode(message(output_ids=ints(7), sequence_length=ints(1))).final


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Exceeds maximum queue size", FULL),
        ("in ensemble 'x', Exceeds maximum queue size", FULL),
        ("Maximum queue size of 64 has been reached, please try again later", FULL),
        ("requestId 7 due to the following error: guides cannot be tried now: no verdict", FULL),
        ("requestId 5 …: steps are slow and its guide may be why: please try elsewhere", FULL),
        ("GRPC server is shutting down and has stopped accepting new requests.", LOST),
        ("Server is stopping, scheduler for model has stopped accepting new requests", LOST),
        ("Request for unknown model: 'small' version 1 is not at ready state", LOST),
        ("Request for unknown model: 'small' has no available versions", LOST),
        ("Stub process 'small_0_0' is not healthy.", LOST),
        ("the engine said nothing for 20 s", LOST),
        ("[request id: x] unexpected shape for input 'input_ids'", BAD),
        ("inference input data-type is 'FP32', unexpected datatype", BAD),
        ("Request for unknown model: 'small' is not found", BROKEN),
        ("something nobody has thought of", BROKEN),
        ("", BROKEN),
    ],
)
def test_a_message_is_classified(text: str, kind: str) -> None:
    error = classify(text)
    if kind in {LOST, FULL}:
        assert isinstance(error, ReplicaFailed)
        assert error.lost == (kind == LOST)
    else:
        assert isinstance(error, BadRequest if kind == BAD else InternalError)


@pytest.mark.parametrize("final", [None, False, True])
def test_an_error_message_ends_the_request_with_or_without_the_flag(*, final: bool | None) -> None:
    told = message(final=final)
    told.error_message = "Server is stopping"
    with pytest.raises(ReplicaFailed):
        decode(told)


@pytest.mark.parametrize("message", [TOO_MANY, TOO_FULL, TRUST_LOST])
def test_too_many_new_forms_are_told_and_not_tried_elsewhere(message: str) -> None:
    error = classify(message)
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry_after_seconds) == ("NEW_FORMS", 1.0)


def test_a_long_message_is_cut() -> None:
    assert len(str(classify("x" * 10_000))) < 300
    assert len(str(classify("Invalid request" + "x" * 10_000))) < 300


def test_log_probs_are_asked_for_only_where_they_are_wanted() -> None:
    plain = encoder().request(wanted(), "id")
    asking = encoder().request(wanted(log_probs=True), "id")
    assert "return_log_probs" not in sent(plain)
    assert sent(asking)["return_log_probs"] == ("BOOL", [1, 1], b"\1")
    outputs = [one.name for one in asking.outputs]
    assert outputs == [*(one.name for one in plain.outputs), "output_log_probs"]


def test_log_probs_come_as_the_whole_list_so_far() -> None:
    message = pb.ModelStreamInferResponse()
    response = message.infer_response
    for name, raw in (
        ("output_ids", struct.pack("<i", 7)),
        ("sequence_length", struct.pack("<i", 1)),
        ("output_log_probs", struct.pack("<2f", -0.5, -1.25)),
    ):
        response.outputs.add().name = name
        response.raw_output_contents.append(raw)
    chunk = decode(message)
    assert list(chunk.tokens) == [7]
    assert chunk.log_probs is not None
    assert unpack_log_probs(chunk.log_probs, 2) == (-0.5, -1.25)
    assert unpack_log_probs(chunk.log_probs, 1) == (-0.5,)
    assert unpack_log_probs(chunk.log_probs, 3) is None  # fewer than there are tokens say nothing
    del response.outputs[2], response.raw_output_contents[2]
    assert decode(message).log_probs is None
