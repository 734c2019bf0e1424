"""Answers that follow a grammar: a JSON schema, a regular expression or an EBNF grammar.

The pipeline masks tokens with xgrammar, which needs each token's bytes. It reads them from a
detokenizer graph; a model folder in Hugging Face form has none, so one is made here from its
tokenizer.json. And a grammar that does not compile makes the pipeline raise in the middle of a
batch: every grammar is first tried on a pipeline of its own, around a model of next to nothing.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset15 as op
from openvino_tokenizers import _get_factory  # type: ignore[import-untyped]

from engines.cpu.request import InvalidRequestError
from engines.graph import build
from engines.recipes import Shape

Guide = tuple[str, str]

_ANY_JSON = '{"type": ["object", "array", "string", "number", "boolean", "null"]}'
_REMEMBERED = 256  # grammars known to compile


class NoVocabularyError(Exception):
    """The bytes of the model's tokens cannot be had; the text says why."""


def structured_output(guide: Guide) -> Any:
    """OpenVINO's form of a guide, (type, text) as in `request.Generation`."""
    kind, text = guide
    if kind == "regex":
        return genai.StructuredOutputConfig(regex=text)
    if kind == "ebnf_grammar":
        return genai.StructuredOutputConfig(grammar=text)
    return genai.StructuredOutputConfig(json_schema=_ANY_JSON if kind == "json" else text)


def tokenizer_of(weights: Path) -> Any:
    """The folder's tokenizer as far as guided decoding needs it. Raises `NoVocabularyError`."""
    if (weights / "openvino_detokenizer.xml").is_file():
        return genai.Tokenizer(str(weights))
    if not (weights / "tokenizer.json").is_file():
        raise NoVocabularyError("the model's folder has no tokenizer.json")
    with tempfile.TemporaryDirectory(prefix="pennyweight-detokenizer-") as scratch:
        vocabulary = token_bytes(json.loads((weights / "tokenizer.json").read_text("utf-8")))
        ov.save_model(_detokenizer(vocabulary), Path(scratch) / "openvino_detokenizer.xml")
        (Path(scratch) / "config.json").write_bytes((weights / "config.json").read_bytes())
        return genai.Tokenizer(scratch)


def token_bytes(tokenizer: dict[str, Any]) -> list[bytes]:
    """What each id of a Hugging Face tokenizer.json spells; special tokens spell nothing.

    Knows byte-level BPE and BPE with byte fallback. Raises `NoVocabularyError` for others.
    """
    model = tokenizer.get("model") or {}
    decoders = json.dumps(tokenizer.get("decoder"))
    entries = model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(entries, dict):
        raise NoVocabularyError(f"it is a {model.get('type')} tokenizer, not BPE")
    if "ByteLevel" in decoders:
        spell = _byte_level()
    elif "ByteFallback" in decoders:
        spell = _byte_fallback
    else:
        raise NoVocabularyError("its decoder is neither ByteLevel nor ByteFallback")
    added = tokenizer.get("added_tokens") or []
    size = 1 + max([*entries.values(), *(token["id"] for token in added)])
    spelled = [b""] * size
    for text, index in entries.items():
        spelled[index] = spell(text)
    for token in added:
        spelled[token["id"]] = b"" if token["special"] else token["content"].encode()
    return spelled


def _byte_level() -> Any:
    """Invert GPT-2's printable alphabet, in which byte-level BPE writes its tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet |= {chr(256 + place): byte for place, byte in enumerate(others)}

    def spell(text: str) -> bytes:
        if all(letter in alphabet for letter in text):
            return bytes(alphabet[letter] for letter in text)
        return text.encode()

    return spell


def _byte_fallback(text: str) -> bytes:
    if len(text) == len("<0x00>") and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode()


def _detokenizer(vocabulary: list[bytes]) -> ov.Model:
    ends = np.cumsum([len(spelled) for spelled in vocabulary], dtype=np.int32)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int32)
    chars = np.frombuffer(b"".join(vocabulary), dtype=np.uint8)
    ids = op.parameter([-1, -1], ov.Type.i64)
    # The last one names special tokens to skip; OpenVINO GenAI needs it not to be empty.
    tables = [op.constant(table) for table in (begins, ends, chars, np.zeros(1, np.int32))]
    inputs = [node.output(0) for node in (op.convert(ids, ov.Type.i32), *tables)]
    *ragged, text = _get_factory().create("VocabDecoder", inputs).outputs()
    fused = _get_factory().create("FuzeRagged", ragged, {}).outputs()
    packed = op.string_tensor_pack(*fused, text)
    packed.output(0).get_tensor().set_names({"string_output"})
    return ov.Model([packed], [ids], "detokenizer")


class GrammarCheck:
    """Tries grammars where a failure hurts nobody.

    `tokenizer` is the serving pipeline's own, so that a grammar is compiled once for both.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._pipeline: Any = None
        self._good: OrderedDict[Guide, None] = OrderedDict()

    def __call__(self, guide: Guide) -> None:
        """Raise `InvalidRequestError` if the guide does not compile."""
        if guide in self._good:
            self._good.move_to_end(guide)
            return
        if self._pipeline is None:
            self._pipeline = self._probe()
        config = genai.GenerationConfig(max_new_tokens=1, ignore_eos=True)
        config.structured_output_config = structured_output(guide)
        prompt = ov.Tensor(np.zeros((1, 1), np.int64))
        try:
            handle = self._pipeline.add_request(0, prompt, config)
        except Exception as error:
            raise _not_compiled(error) from error
        try:
            self._pipeline.step()
        except Exception as error:
            # It raises in every step until the request is gone.
            handle.cancel()
            self._settle()
            raise _not_compiled(error) from error
        self._good[guide] = None
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)

    def _settle(self) -> None:
        try:
            self._pipeline.step()
        except Exception:  # noqa: BLE001 - whatever it is, a fresh one does not have it
            self._pipeline = None

    def _probe(self) -> Any:
        shape = Shape(layers=1, width=64, feed_forward=64, vocabulary=self._vocabulary)
        with tempfile.TemporaryDirectory(prefix="pennyweight-probe-") as scratch:
            folder = Path(scratch)
            model = build(shape, _Zeros(shape), "int8")
            ov.save_model(model, folder / "openvino_model.xml")
            (folder / "config.json").write_text(json.dumps(shape.hf_config(bos=0, eos=0, pad=0)))
            (folder / "generation_config.json").write_text("{}")
            scheduler = genai.SchedulerConfig()
            scheduler.num_kv_blocks = 4
            return genai.ContinuousBatchingPipeline(
                str(folder), self._tokenizer, scheduler, "CPU", INFERENCE_NUM_THREADS=1
            )


def _not_compiled(error: Exception) -> InvalidRequestError:
    # xgrammar puts a time and a place in its source before the reason.
    last_line = str(error).strip().rpartition("\n")[2]
    reason = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", last_line)
    return InvalidRequestError(f"guided_decoding_guide does not compile: {reason}")


class _Zeros(dict[str, Any]):
    """Weights of nothing, made as they are asked for."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape

    def __missing__(self, name: str) -> Any:
        shape = self._shape
        if name.endswith("norm.weight"):
            return np.ones(shape.width, np.float32)
        out = shape.feed_forward if "gate" in name or "up" in name else shape.width
        inner = shape.feed_forward if "down" in name else shape.width
        if "embed" in name:
            out = shape.vocabulary
        return np.zeros((out, inner), np.float32)
