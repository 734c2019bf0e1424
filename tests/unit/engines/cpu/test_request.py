"""Tensors in, a request or a clear refusal out."""

from typing import Any

import numpy as np
import pytest

from engines.cpu.request import Generation, InvalidRequestError, Limits, Stop, parse
from engines.cpu.tensors import REFUSED_INPUTS, REQUIRED_OUTPUTS

LIMITS = Limits(vocabulary=100, max_seq_len=64, total_blocks=4, block_size=32)
DTYPES = {
    "streaming": bool,
    "stop": bool,
    "exclude_input_in_output": bool,
    "return_log_probs": bool,
    "return_context_logits": bool,
    "temperature": np.float32,
    "runtime_top_p": np.float32,
    "repetition_penalty": np.float32,
    "presence_penalty": np.float32,
    "seed": np.uint64,
    "guided_decoding_guide": object,
    "guided_decoding_guide_type": object,
}


def tensors(**values: Any) -> dict[str, Any]:
    """The least request, changed by `values`; None leaves a tensor out."""
    merged = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": 8, **values}
    return {
        name: np.atleast_1d(np.array(value, DTYPES.get(name, np.int32)))
        if np.ndim(value) == 0
        else np.array([value], DTYPES.get(name, np.int32))
        for name, value in merged.items()
        if value is not None
    }


def generation(**values: Any) -> Generation:
    parsed = parse(tensors(**values), REQUIRED_OUTPUTS, LIMITS)
    assert isinstance(parsed, Generation)
    return parsed


def test_the_least_request_is_greedy_whole_and_repeats_the_prompt() -> None:
    got = generation()
    assert got.prompt == (1, 2, 3)
    assert got.max_new_tokens == 8
    assert got.sampling.greedy
    assert got.end_id is None
    assert got.echo_prompt
    assert not got.streaming


def test_a_stream_never_repeats_the_prompt() -> None:
    assert not generation(streaming=True).echo_prompt


def test_excluding_the_prompt_has_a_default_per_model() -> None:
    values = tensors()
    got = parse(values, REQUIRED_OUTPUTS, LIMITS, exclude_input_by_default=True)
    assert isinstance(got, Generation)
    assert not got.echo_prompt


def test_input_lengths_cuts_the_padding_off() -> None:
    assert generation(input_ids=[1, 2, 3, 0, 0], input_lengths=2).prompt == (1, 2)


@pytest.mark.parametrize(
    ("values", "greedy"),
    [
        ({}, True),
        ({"temperature": 0.7}, True),
        ({"runtime_top_k": 1, "temperature": 0.7}, True),
        ({"runtime_top_k": 5}, False),
        ({"runtime_top_p": 0.9}, False),
        ({"runtime_top_p": 0.0}, True),
        ({"runtime_top_k": 5, "temperature": 0.0}, True),
    ],
)
def test_sampling_follows_tensorrt_llm(*, values: dict[str, Any], greedy: bool) -> None:
    assert generation(**values).sampling.greedy is greedy


def test_stop_words_are_split_at_their_ends() -> None:
    words = [[7, 8, 9, 5, 0], [2, 3, 4, -1, -1]]
    assert generation(stop_words_list=words).stop_words == ((7, 8), (9,), (5,))


def test_stop_needs_nothing_else() -> None:
    assert parse({"stop": np.array([True])}, (), LIMITS) == Stop()


def test_a_seed_may_use_all_64_bits() -> None:
    assert generation(runtime_top_k=5, seed=2**64 - 1).sampling.seed == 2**64 - 1


def test_a_guide_is_kind_and_text() -> None:
    got = generation(
        end_id=2, guided_decoding_guide_type=[b"regex"], guided_decoding_guide=["ä+".encode()]
    )
    assert got.guide == ("regex", "ä+")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"input_ids": None}, "input_ids must hold at least one token"),
        ({"input_ids": [], "input_lengths": 0}, "input_ids must hold at least one token"),
        ({"input_lengths": 4}, "input_lengths is 4, input_ids holds 3 tokens"),
        ({"input_lengths": -1}, "input_lengths must be at least 1, not -1"),
        ({"input_ids": [1, 2, 100]}, "input_ids must be from 0 to 99, not 100"),
        ({"input_ids": [1, -2, 3]}, "input_ids must be from 0 to 99, not -2"),
        ({"request_output_len": 0}, "request_output_len must be at least 1, not 0"),
        ({"request_output_len": -5}, "request_output_len must be at least 1, not -5"),
        (
            {"request_output_len": 62},
            "prompt length (3) plus request_output_len (62) exceeds max_seq_len (64)",
        ),
        ({"end_id": 100}, "end_id must be from -1 to 99, not 100"),
        ({"end_id": -2}, "end_id must be at least -1, not -2"),
        ({"beam_width": 2}, "beam_width must be 1 on the CPU engine"),
        ({"num_return_sequences": 2}, "num_return_sequences must be 1 on the CPU engine"),
        ({"temperature": float("nan")}, "temperature must be from 0.0 to inf, not nan"),
        ({"temperature": -1.0}, "temperature must be from 0.0 to inf, not -1.0"),
        ({"runtime_top_p": 1.5}, "runtime_top_p must be from 0.0 to 1.0, not 1.5"),
        ({"runtime_top_k": -1}, "runtime_top_k must be at least 0, not -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be from 1e-06 to inf, not 0.0"),
        ({"presence_penalty": 3.0}, "presence_penalty must be from -2.0 to 2.0, not 3.0"),
        ({"return_context_logits": True}, "return_context_logits: logits cannot be had"),
        ({"stop_words_list": [1, 2]}, "stop_words_list must have the shape [1, 2, N], not [1, 2]"),
        ({"stop_words_list": [[1, 2], [3, -1]]}, "stop_words_list: word 0 ends at 3"),
        ({"stop_words_list": [[1, 2], [2, 1]]}, "stop_words_list: word 1 ends at 1"),
        ({"stop_words_list": [[100, 2], [2, -1]]}, "stop_words_list must be from 0 to 99"),
        ({"guided_decoding_guide": [b"x"]}, "guided_decoding_guide_type must be one of"),
        (
            {"guided_decoding_guide_type": [b"regex"], "end_id": 2},
            "guided_decoding_guide must not be empty",
        ),
        (
            {"guided_decoding_guide_type": [b"regex"], "guided_decoding_guide": [b"a"]},
            "guided_decoding_guide needs an end_id to end with",
        ),
        ({"guided_decoding_guide": [b"\xff"]}, "guided_decoding_guide must be UTF-8"),
        (
            {"guided_decoding_guide_type": [b"regex"], "guided_decoding_guide": [b"a\0b"]},
            "guided_decoding_guide must not hold the character NUL",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_with_tensor_rule_and_value(
    values: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        generation(**values)
    assert str(caught.value).startswith(f"Invalid request: {text}")


@pytest.mark.parametrize("name", sorted(REFUSED_INPUTS))
def test_what_has_no_equivalent_is_refused_never_ignored(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} has no equivalent on the CPU engine"):
        generation(**{name: [1]})


@pytest.mark.parametrize("name", REQUIRED_OUTPUTS)
def test_the_required_outputs_must_be_asked_for(name: str) -> None:
    outputs = set(REQUIRED_OUTPUTS) - {name}
    with pytest.raises(InvalidRequestError, match=f"{name} must be among the requested outputs"):
        parse(tensors(), outputs, LIMITS)


def test_a_batch_in_one_request_is_refused() -> None:
    values = tensors()
    values["input_ids"] = np.ones((2, 3), np.int32)
    with pytest.raises(InvalidRequestError, match="the batch dimension must be 1, not 2"):
        parse(values, REQUIRED_OUTPUTS, LIMITS)


def test_an_answer_must_fit_into_the_cache() -> None:
    limits = Limits(vocabulary=100, max_seq_len=64, total_blocks=1, block_size=32)
    with pytest.raises(InvalidRequestError, match=r"exceeds the KV-cache \(32 tokens\)"):
        parse(tensors(request_output_len=30), REQUIRED_OUTPUTS, limits)
