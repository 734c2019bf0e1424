"""Guides that cost too much: tried aside, refused in words, and nobody else waits for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.cpu.process.trial import Limits, Trial
from engines.cpu.request import InvalidRequestError
from services.router.policy.effort import Effort
from services.router.policy.expressions import read
from services.router.policy.grammars import Writer, grammar
from services.router.policy.schema_rules import told
from tests.e2e.triton_fixtures import END_ID, REPOSITORY, Triton, collect


def as_written(expression: str) -> str:
    """The grammar of an expression that routers do not tell, as engines take those of others."""
    writer = Writer(Effort())
    return writer.joined(writer.rule(read(expression)))


WEIGHTS = REPOSITORY / "small" / "weights" / "int8"
VOCABULARY = 2048
PROMPT = [1, 4, 100, 200, 300, 5]


def nested(depth: int) -> object:
    inner: object = {"type": "string"}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner, "b": inner}}
    return inner


STARS = "e ::= d*\nd ::= c*\nc ::= b*\nb ::= a*"
COSTLY = [
    ("regex", ".*a.{12}"),
    ("regex", ".*a.{25}"),
    ("regex", "(.*a.{60}){3}"),
    ("json_schema", json.dumps({"type": "string", "pattern": ".*a.{12}"})),
    ("json_schema", json.dumps({"type": "string", "pattern": "(.*a.{60}){3}"})),
    ("json_schema", json.dumps(nested(12))),
    ("json_schema", json.dumps({"type": "string", "pattern": "(((((a{1000}){1000}){1000})))"})),
    ("ebnf_grammar", 'root ::= [^\\n]* "a" [^\\n]{12}'),
    # Callers of the router cannot have these said so, whoever talks to Triton can.
    ("ebnf_grammar", 'root ::= c{0,1000} "a" c{0,1000} "b" c{0,1000}\nc ::= [^\\n]'),
    ("ebnf_grammar", "root ::= d{0,30}\nd ::= e{0,30}\ne ::= f{0,30}\nf ::= [^\\n]{0,30}"),
    # These grow with the answer, which an early end must not hide.
    ("ebnf_grammar", f'root ::= {"b* " * 150}\nb ::= a*\na ::= "a"'),
    ("ebnf_grammar", f'root ::= {"e* " * 20}\n{STARS}\na ::= "a"'),
    ("ebnf_grammar", f"root ::= {'c* ' * 200}\nc ::= [^\\n]"),
    ("ebnf_grammar", "root ::= d{500,500}\nd ::= c?\nc ::= [^\\n]"),
    ("ebnf_grammar", as_written("(.?a?){500}")),
    ("ebnf_grammar", as_written("(.*a?){100}")),
    ("ebnf_grammar", as_written("(.{2,3}){0,300}")),
    ("json_schema", '{"type": "string", "maxLength": 1000000000}'),
]
CHEAP = [
    ("ebnf_grammar", grammar(".*a.{12}")),
    ("ebnf_grammar", grammar(".*a.{25}")),
    ("ebnf_grammar", grammar("(.*a.{60}){3}")),
    ("regex", "[a-z]+@[a-z]{1,64}"),
    ("ebnf_grammar", 'root ::= e\ne ::= e "+" e | "(" e ")" | [0-9]+'),
    ("ebnf_grammar", 'root ::= a\na ::= b | "x"\nb ::= a'),
    ("json_schema", json.dumps({"enum": [f"value {number}" for number in range(3000)]})),
    ("json_schema", '{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}'),
    (
        "json_schema",
        '{"type": "array", "items": {"type": "null"}, "uniqueItems": true, "minItems": 1000000}',
    ),
    ("json_schema", '{"type": "string", "minLength": 100000000}'),
    ("json_schema", '{"type": "string", "maxLength": 200}'),
    ("ebnf_grammar", grammar(".{0,1000}")),
    ("ebnf_grammar", grammar(".{0,1000}a.{0,1000}")),
    ("ebnf_grammar", grammar("(((.{0,30}){0,30}){0,30}){0,30}")),
    ("ebnf_grammar", grammar("(.?){500}")),
    ("ebnf_grammar", grammar("(a*)*" * 150)),
    ("ebnf_grammar", grammar(".*" * 200)),
    ("ebnf_grammar", told('{"type": "string", "maxLength": 1000}')),
    ("ebnf_grammar", grammar("(ab|a)*(ba|b)*" * 20)),
    ("ebnf_grammar", grammar("a?" * 100)),
    (
        "ebnf_grammar",
        grammar(f"({'|'.join('a' * n + 'b' for n in range(1, 150))})*", Effort(10**7)),
    ),
]


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    trial = Trial(WEIGHTS, VOCABULARY, Limits(seconds=1.0, bytes=32 << 20))
    yield trial
    trial.close()


@pytest.mark.parametrize("guide", COSTLY, ids=lambda guide: f"{guide[0]} {guide[1][:40]}")
def test_a_costly_guide_is_refused_and_the_next_one_tried(
    trial: Trial, guide: tuple[str, str]
) -> None:
    with pytest.raises(InvalidRequestError, match="guided_decoding_guide is too costly: "):
        trial(guide)
    assert trial(("regex", "yes|no")).token_seconds < 0.01


@pytest.mark.parametrize("guide", CHEAP, ids=lambda guide: f"{guide[0]} {guide[1][:40]}")
def test_a_cheap_guide_passes(trial: Trial, guide: tuple[str, str]) -> None:
    assert trial(guide).bytes >= 0


def test_what_a_guide_keeps_is_bounded() -> None:
    many = {"enum": [f"value {number}" for number in range(3000)]}
    small = Trial(WEIGHTS, VOCABULARY, Limits(seconds=1.0, bytes=1 << 20))
    with pytest.raises(InvalidRequestError, match="MiB of memory"):
        small(("json_schema", json.dumps(many)))
    small.close()


def call(server: Triton, tokens: int, **options: Any) -> Any:
    """A running request, which fails after a minute: one that waits for a guide would for ever."""
    request = server.request(PROMPT, tokens, **options)
    return server.stub.ModelStreamInfer(iter([request]), timeout=60)


def guided(server: Triton, guide: tuple[str, str], **options: Any) -> Any:
    kind, text = guide
    return call(
        server,
        40,
        **options,
        end_id=END_ID,
        guided_decoding_guide_type=kind,
        guided_decoding_guide=text,
    )


def test_others_are_answered_while_costly_guides_are_tried(tmp_path: Path) -> None:
    with Triton(tmp_path) as server:
        server.wait_ready()
        long = call(server, 900)
        waiting = [guided(server, guide) for guide in COSTLY[:5]]
        assert len(collect(long).tokens) == 900
        for _ in range(10):
            assert len(collect(call(server, 5)).tokens) == 5
        for stream in waiting[1:]:
            stream.cancel()  # their callers hang up
        assert "is too costly" in collect(waiting[0]).error
        assert "is too costly" in collect(guided(server, COSTLY[0])).error
        for guide in CHEAP[:3]:
            assert len(collect(guided(server, guide)).tokens) > 0


def test_who_brings_many_costly_guides_does_not_keep_others_waiting(tmp_path: Path) -> None:
    with Triton(tmp_path) as server:
        server.wait_ready()
        # Any of these takes a second of processor time or more, and no call waits a minute.
        many = [
            guided(server, ("regex", f".*a.{{{20 + number}}}"), source="many")
            for number in range(60)
        ]
        for text in ("yes|no", "[a-z]{3}", "[0-9]+"):
            assert len(collect(guided(server, ("regex", text), source="other")).tokens) > 0
        assert "wait for their guides" in collect(many[-1]).error
        for stream in many:
            stream.cancel()
