"""A Llama checkpoint as an OpenVINO graph with a stateful KV cache and compressed weights.

The graph has the form that OpenVINO GenAI's `ContinuousBatchingPipeline` turns into paged
attention: inputs `input_ids`, `attention_mask`, `position_ids`, `beam_idx`; output `logits`.
Weights come in under their Hugging Face names. Needs neither torch nor the network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from openvino.op import Constant
from openvino.op.util import Variable, VariableInfo

from engines.recipes import Shape

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Node = Any  # openvino's node type has no complete stubs
Compressor = Callable[[Array], Node]

INT4_GROUP = 32  # input channels that share a scale; the narrow layers lose too much with 128


def int8(weight: Array) -> Node:
    """Symmetric 8 bit with one scale for each output channel."""
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127.0, 1e-8)
    codes = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    half = op.convert(op.constant(codes), ov.Type.f16)
    return op.convert(op.multiply(half, op.constant(scale.astype(np.float16))), ov.Type.f32)


def int4(weight: Array) -> Node:
    """Asymmetric 4 bit with a scale and a zero point for each group of input channels."""
    out, inner = weight.shape
    groups = weight.reshape(out, inner // INT4_GROUP, INT4_GROUP)
    low = np.minimum(groups.min(axis=2, keepdims=True), 0.0)
    high = np.maximum(groups.max(axis=2, keepdims=True), 0.0)
    scale = np.maximum((high - low) / 15.0, 1e-8)
    zero = np.clip(np.round(-low / scale), 0, 15)
    codes = np.clip(np.round(groups / scale) + zero, 0, 15)
    centred = op.subtract(_nibbles(codes), _nibbles(zero))
    scaled = op.multiply(centred, op.constant(scale.astype(np.float16)))
    flat = op.reshape(scaled, op.constant(np.array([out, inner], np.int64)), special_zero=False)
    return op.convert(flat, ov.Type.f32)


def _nibbles(codes: npt.NDArray[Any]) -> Node:
    """A u4 constant, widened to f16 inside the graph."""
    flat = codes.astype(np.uint8).ravel()
    # ov.Tensor would only borrow an array's memory; the constant owns a copy
    return op.convert(Constant(ov.Type.u4, ov.Shape(codes.shape), flat.tolist()), ov.Type.f16)


PRECISIONS: dict[str, Compressor] = {"int8": int8, "int4": int4}


def build(shape: Shape, weights: Weights, precision: str) -> ov.Model:
    """The whole model. Embeddings stay 8 bit: rare words cannot spare more, lookups are cheap."""
    ids = _input("input_ids", [-1, -1], ov.Type.i64)
    mask = _input("attention_mask", [-1, -1], ov.Type.i64)
    positions = _input("position_ids", [-1, -1], ov.Type.i64)
    beams = _input("beam_idx", [-1], ov.Type.i32)

    embedding = int8(weights["model.embed_tokens.weight"])
    hidden = op.gather(embedding, ids, _ints(0))
    batch = op.gather(op.shape_of(ids), _ints([0]), _ints(0))
    visible = _visible(ids, mask)
    rotation = _rotation(shape, positions)
    compress = PRECISIONS[precision]
    sinks: list[Any] = []

    for layer in range(shape.layers):
        name = f"model.layers.{layer}"

        def linear(x: Node, part: str, name: str = name) -> Node:
            return op.matmul(
                x, compress(weights[f"{name}.{part}.weight"]), transpose_a=False, transpose_b=True
            )

        def cached(fresh: Node, kind: str, layer: int = layer) -> Node:
            past, keep = _state(shape, f"past_key_values.{layer}.{kind}", batch, beams)
            whole = op.concat([past, fresh], 2)
            sinks.append(keep(whole))
            return whole

        x = _norm(hidden, weights[f"{name}.input_layernorm.weight"], shape)
        query = _rotate(_split(linear(x, "self_attn.q_proj"), shape), rotation, shape)
        key = _rotate(_split(linear(x, "self_attn.k_proj"), shape), rotation, shape)
        value = _split(linear(x, "self_attn.v_proj"), shape)
        attended = op.scaled_dot_product_attention(
            query, cached(key, "key"), cached(value, "value"), visible, causal=False
        )
        merged = op.reshape(
            op.transpose(attended, _ints([0, 2, 1, 3])), _ints([0, 0, -1]), special_zero=True
        )
        hidden = op.add(hidden, linear(merged, "self_attn.o_proj"))

        x = _norm(hidden, weights[f"{name}.post_attention_layernorm.weight"], shape)
        gated = op.multiply(op.swish(linear(x, "mlp.gate_proj")), linear(x, "mlp.up_proj"))
        hidden = op.add(hidden, linear(gated, "mlp.down_proj"))

    hidden = _norm(hidden, weights["model.norm.weight"], shape)
    logits = op.result(op.matmul(hidden, embedding, transpose_a=False, transpose_b=True))
    logits.output(0).get_tensor().set_names({"logits"})
    logits.set_friendly_name("logits")
    return ov.Model([logits], sinks, [ids, mask, positions, beams], "pennyweight-local")


def _input(name: str, dimensions: list[int], kind: ov.Type) -> Node:
    node = op.parameter(ov.PartialShape(dimensions), kind)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _ints(value: int | list[int]) -> Node:
    return op.constant(np.array(value, np.int64))


def _norm(x: Node, weight: Array, shape: Shape) -> Node:
    """Root-mean-square normalisation over the last axis."""
    square = op.reduce_mean(op.power(x, op.constant(np.float32(2))), _ints([-1]), keep_dims=True)
    root = op.sqrt(op.add(square, op.constant(np.float32(shape.norm_epsilon))))
    return op.multiply(op.divide(x, root), op.constant(weight.reshape(1, 1, -1)))


def _split(x: Node, shape: Shape) -> Node:
    """[batch, tokens, width] to [batch, heads, tokens, head size]."""
    by_head = op.reshape(x, _ints([0, 0, shape.heads, shape.head_size]), special_zero=True)
    return op.transpose(by_head, _ints([0, 2, 1, 3]))


def _rotation(shape: Shape, positions: Node) -> tuple[Node, Node]:
    """Cosine and sine of the rotary embedding, [batch, 1, tokens, head size]."""
    exponents = np.arange(0, shape.head_size, 2, dtype=np.float32) / shape.head_size
    frequencies = (shape.rope_theta**-exponents).astype(np.float32).reshape(1, 1, -1)
    steps = op.unsqueeze(op.convert(positions, ov.Type.f32), _ints(2))
    angles = op.multiply(steps, op.constant(frequencies))
    doubled = op.unsqueeze(op.concat([angles, angles], -1), _ints(1))
    return op.cos(doubled), op.sin(doubled)


def _rotate(x: Node, rotation: tuple[Node, Node], shape: Shape) -> Node:
    """Rotary position embedding in the half-split layout of Hugging Face."""
    cosine, sine = rotation
    half = _ints([shape.head_size // 2])
    first = op.slice(x, _ints([0]), half, _ints([1]), _ints([3]))
    second = op.slice(x, half, _ints([2**63 - 1]), _ints([1]), _ints([3]))
    turned = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], -1)
    return op.add(op.multiply(x, cosine), op.multiply(turned, sine))


def _visible(ids: Node, mask: Node) -> Node:
    """True where a query may look at a key, [batch, 1, queries, keys]."""
    total = op.gather(op.shape_of(mask), _ints(1), _ints(0))
    fresh = op.gather(op.shape_of(ids), _ints(1), _ints(0))
    keys = op.range(_ints(0), total, _ints(1), "i64")
    queries = op.range(op.subtract(total, fresh), total, _ints(1), "i64")
    causal = op.less_equal(op.unsqueeze(keys, _ints(0)), op.unsqueeze(queries, _ints(1)))
    present = op.unsqueeze(op.not_equal(mask, _ints(0)), _ints([1, 2]))
    return op.logical_and(present, causal)


def _state(
    shape: Shape, name: str, batch: Node, beams: Node
) -> tuple[Node, Callable[[Node], Node]]:
    """What earlier steps left under a name, and how to keep the new value for the next step."""
    info = VariableInfo()
    info.data_shape = ov.PartialShape([-1, shape.heads, -1, shape.head_size])
    info.data_type = ov.Type.f32
    info.variable_id = name
    variable = Variable(info)
    empty_shape = op.concat([batch, _ints([shape.heads]), _ints([0]), _ints([shape.head_size])], 0)
    empty = op.broadcast(op.constant(np.float32(0)), empty_shape)
    past = op.gather(op.read_value(empty, variable), beams, _ints(0))
    return past, lambda whole: op.assign(whole, variable)
