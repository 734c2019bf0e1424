"""Answers that follow a grammar: a JSON schema, a regular expression or an EBNF grammar.

The pipeline masks tokens with xgrammar, which needs each token's bytes. It reads them from a
detokenizer graph; a model folder in Hugging Face form has none, so one is made here from its
tokenizer.json. What a grammar costs is found in `trial.py`, before the pipeline sees it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset15 as op
from openvino_tokenizers import _get_factory  # type: ignore[import-untyped]

from engines.cpu.process.names import refuse_names
from engines.cpu.request import Guide

_ANY_JSON = '{"type": ["object", "array", "string", "number", "boolean", "null"]}'


class NoVocabularyError(Exception):
    """The bytes of the model's tokens cannot be had; the text says why."""


def structured_output(guide: Guide) -> Any:
    """OpenVINO's form of a guide, (type, text) as in `request.Generation`.

    Raises `InvalidRequestError` for a schema whose names its compiler would read as a grammar.
    """
    kind, text = guide
    if kind == "json_schema":
        refuse_names(text)
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
