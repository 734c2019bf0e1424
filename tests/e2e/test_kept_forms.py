"""Answers drawn at random from what the CPU engine is told of a form: all of them satisfy it."""

import json
from collections.abc import Callable
from typing import Any

import openvino_genai as genai
import pytest
import re2
from jsonschema import Draft202012Validator

from engines.cpu.process.guided import structured_output, token_bytes, tokenizer_of
from engines.cpu.process.probe import Probe
from services.router.policy.grammars import grammar
from services.router.policy.schema_rules import told
from tests.e2e.test_guides import VOCABULARY, WEIGHTS

B = {"type": "boolean"}
WORDS = ["card", "cart", "cars", "care", "bar", "barn", "bare", "fees", "feet", "refund", "refuse"]
ANSWERS, TOKENS = 32, 60

Draw = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def draw() -> Draw:
    tokenizer = json.loads((WEIGHTS / "tokenizer.json").read_text())
    config = json.loads((WEIGHTS / "config.json").read_text())
    spelled, end = token_bytes(tokenizer), config["eos_token_id"]
    probe = Probe(tokenizer_of(WEIGHTS), VOCABULARY)

    def answers(rules: str) -> list[str]:
        configs = []
        for seed in range(ANSWERS):
            one = genai.GenerationConfig(max_new_tokens=TOKENS)
            one.do_sample, one.rng_seed = True, seed
            one.eos_token_id, one.stop_token_ids = end, {end}
            one.structured_output_config = structured_output(("ebnf_grammar", rules))
            configs.append(one)
        results = probe._pipeline.generate([probe._prompt] * ANSWERS, configs)
        drawn = [list(result.m_generation_ids[0]) for result in results]
        whole = [tokens for tokens in drawn if end in tokens or len(tokens) < TOKENS]
        return [b"".join(spelled[token] for token in tokens).decode() for tokens in whole]

    return answers


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": WORDS},
        {"enum": list(range(-50, 51))},
        {"enum": [str(number) for number in range(121)]},
        {"type": "integer", "minimum": -3, "maximum": 120},
        {"type": "integer", "minimum": 557, "maximum": 566},
        {"type": "integer", "exclusiveMinimum": 24562, "exclusiveMaximum": 24575},
        {"type": "integer", "minimum": -5},
        {"type": "integer", "maximum": -5},
        {"type": "number"},
        {"type": "string", "pattern": '^"\\\\$'},
        {"type": "string", "pattern": "a|^b"},
        {"type": "string", "pattern": "^\\s\\d$"},
        {"type": "array", "items": B, "minItems": 2, "maxItems": 3},
        {"type": "array", "minItems": 1, "maxItems": 1},
        {"type": "object", "properties": {"a": B, "b": B, "c": B}, "required": ["b"]},
        {"type": "object", "properties": {"é": B, "": B}, "required": ["", "é"]},
        {"oneOf": [{"type": "integer"}, {"type": "null"}]},
        {"const": {'x" [0-9] "y': ["\\", "\n"]}},
        {"type": ["boolean", "integer"], "maximum": 9},
        {"type": "string", "minLength": 3, "maxLength": 20},
        {"enum": ["K\u00e4fer", "\u00e9b", "\u00ff0", "\u0101a", "\x7fa", "^"]},
    ],
    ids=json.dumps,
)
def test_what_is_told_is_kept(draw: Draw, schema: dict[str, Any]) -> None:
    valid = Draft202012Validator(schema)
    drawn = draw(told(json.dumps(schema)))
    assert drawn
    assert [text for text in drawn if not valid.is_valid(json.loads(text))] == []


@pytest.mark.parametrize(
    "expression",
    [
        ".{12}",
        "[^a]{12}",
        "[^a-z\u00e9]{6}",
        "[\\^-\u008d]{6}",
        "[\\^a]{6}",
        "[\u04fd-\u5dbf]{4}",
        "[\U00089496-\U000f5a3f]{4}",
        "[\\x01-\\x1f0-9\u00e9-\u00fca-c]{6}",
        "K\u00e4fer|\u00e90|\x7fa\x01b",
        "(a{0,30}b?){3}",
    ],
    ids=ascii,
)
def test_what_matches_is_told_in_whole_characters(draw: Draw, expression: str) -> None:
    drawn = draw(grammar(expression))
    assert drawn
    assert [text for text in drawn if not re2.fullmatch(expression, text)] == []
