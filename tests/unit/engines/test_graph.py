"""The graph against a plain numpy forward pass, whole and in steps."""

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest

from engines.graph import INT4_GROUP, PRECISIONS, build
from engines.recipes import Shape

SHAPE = Shape(layers=2, width=128, feed_forward=192, vocabulary=96)
IDS = np.array([[5, 17, 3, 90, 41, 8, 8]], np.int64)
Floats = npt.NDArray[np.float32]


def random_weights(shape: Shape) -> dict[str, Floats]:
    rng = np.random.default_rng(3)

    def matrix(*size: int) -> Floats:
        """Values that 4 bits hold exactly: each group of channels spans all sixteen codes."""
        codes = rng.integers(-7, 9, size)
        codes[..., ::INT4_GROUP], codes[..., 1::INT4_GROUP] = -7, 8
        return (codes / 64).astype(np.float32)

    inner, width = shape.feed_forward, shape.width
    weights = {"model.embed_tokens.weight": matrix(shape.vocabulary, width)}
    norms = ["model.norm"]
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        for part in "qkvo":
            weights[f"{name}.self_attn.{part}_proj.weight"] = matrix(width, width)
        weights[f"{name}.mlp.gate_proj.weight"] = matrix(inner, width)
        weights[f"{name}.mlp.up_proj.weight"] = matrix(inner, width)
        weights[f"{name}.mlp.down_proj.weight"] = matrix(width, inner)
        norms += [f"{name}.input_layernorm", f"{name}.post_attention_layernorm"]
    weights |= {f"{norm}.weight": 1 + matrix(width) for norm in norms}
    return weights


def plain_logits(shape: Shape, w: dict[str, Floats], ids: npt.NDArray[np.int64]) -> Floats:
    length, half = len(ids), shape.head_size // 2

    def norm(x: Floats, name: str) -> Floats:
        root = np.sqrt((x**2).mean(-1, keepdims=True) + shape.norm_epsilon)
        return np.asarray(x / root * w[f"{name}.weight"])

    frequencies = shape.rope_theta ** (-np.arange(half) / half)
    turns = np.exp(1j * np.arange(length)[:, None] * frequencies)[:, None, :]

    def rotate(x: Floats) -> Floats:
        turned = (x[..., :half] + 1j * x[..., half:]) * turns
        return np.concatenate([turned.real, turned.imag], -1)

    hidden = w["model.embed_tokens.weight"][ids]
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        x = norm(hidden, f"{name}.input_layernorm")
        query, key, value = (
            (x @ w[f"{name}.self_attn.{part}_proj.weight"].T).reshape(
                length, shape.heads, shape.head_size
            )
            for part in "qkv"
        )
        scores = np.einsum("qhd,khd->hqk", rotate(query), rotate(key)) / shape.head_size**0.5
        scores += np.triu(np.full((length, length), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, value).reshape(length, shape.width)
        hidden = hidden + mixed @ w[f"{name}.self_attn.o_proj.weight"].T
        x = norm(hidden, f"{name}.post_attention_layernorm")
        gate, up = (x @ w[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    return np.asarray(norm(hidden, "model.norm") @ w["model.embed_tokens.weight"].T)


def run(request: Any, ids: npt.NDArray[np.int64], past: int) -> Floats:
    length = ids.shape[1]
    request.infer(
        {
            "input_ids": ids,
            "attention_mask": np.ones((1, past + length), np.int64),
            "position_ids": np.arange(past, past + length)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
    )
    return np.array(request.get_tensor("logits").data[0])


@pytest.fixture(scope="module", params=[*PRECISIONS])
def graph(request: pytest.FixtureRequest) -> Any:
    model = build(SHAPE, random_weights(SHAPE), request.param)
    return ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "KV_CACHE_PRECISION": "f32",
        },
    )


def test_agrees_with_a_plain_forward_pass(graph: Any) -> None:
    wanted = plain_logits(SHAPE, random_weights(SHAPE), IDS[0])
    given = run(graph.create_infer_request(), IDS, 0)
    assert np.corrcoef(given.ravel(), wanted.ravel())[0, 1] > 0.9999


def test_remembers_earlier_steps(graph: Any) -> None:
    whole = run(graph.create_infer_request(), IDS, 0)
    stepwise = graph.create_infer_request()
    parts = [
        run(stepwise, IDS[:, :4], 0),
        run(stepwise, IDS[:, 4:5], 4),
        run(stepwise, IDS[:, 5:], 5),
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-2)
