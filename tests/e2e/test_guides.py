"""Guides that cost too much: tried aside, refused in words, and nobody else waits for them."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engines.cpu.process.trial import Limits, Trial
from engines.cpu.request import InvalidRequestError
from services.router.policy.effort import Effort
from services.router.policy.expressions import read
from services.router.policy.grammars import Writer, grammar
from services.router.policy.schema_rules import told
from tests.e2e.triton_fixtures import END_ID, REPOSITORY, Answer, Triton, collect, until


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
    ("ebnf_grammar", grammar("(.*a.{30}){2}")),
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
    ("ebnf_grammar", grammar(".{0,100}a.{0,100}")),
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


def late(words: str, inner: int) -> tuple[str, str]:
    """A guide each of whose steps takes longer than the one before, behind what is tried of it."""
    rules = f"d ::= e{{0,{inner}}}\ne ::= [^\\n]"
    return "ebnf_grammar", f'root ::= "{"qz" * 132}" {words}\n{rules}'


def thrice(inner: int) -> tuple[str, str]:
    """As `(qz){132}((.{0,10}){0,10}a){3}`: steps grow to some seconds."""
    kind, text = late("c c c", inner)
    return kind, f'{text}\nc ::= d{{0,10}} "a"'


def beside(
    server: Triton, guide: tuple[str, str], other: Callable[[], Answer]
) -> tuple[Answer, list[Answer], float]:
    """A guided answer, others asked one after another meanwhile, and the longest of these."""
    kind, text = guide
    options = {"guided_decoding_guide_type": kind, "guided_decoding_guide": text}
    request = server.request(PROMPT, 400, end_id=END_ID, **options)
    with ThreadPoolExecutor(1) as pool:
        stream = server.stub.ModelStreamInfer(iter([request]), timeout=100)
        slow = pool.submit(collect, stream)
        others, longest = [], 0.0
        while not slow.done():
            began = time.monotonic()
            others.append(other())
            longest = max(longest, time.monotonic() - began)
        return slow.result(), others, longest


BOUND = 20.0
"""Seconds: three of processor time in a step, on a machine with much other work."""


def test_others_are_answered_beside_guides_that_are_slow_behind_what_was_tried(
    tmp_path: Path,
) -> None:
    """Short plain requests do not hide them; each would keep the engine for minutes."""
    with Triton(tmp_path) as server:

        def short() -> Answer:
            return server.generate(PROMPT, 1)

        server.wait_ready()
        for inner in (10, 11):
            answer, plain, longest = beside(server, thrice(inner), short)
            assert "too costly: its tokens take too long" in answer.error
            assert len(answer.tokens) > 256
            assert len(plain) > 1
            assert longest < BOUND
            again, _, _ = beside(server, thrice(inner), short)
            assert (again.tokens, again.error) == ([], answer.error)
        assert len(collect(guided(server, CHEAP[0])).tokens) > 0


def test_a_step_without_end_ends_the_engine_and_its_guide_is_refused_by_the_next(
    tmp_path: Path,
) -> None:
    # So steep that no slow step comes before the endless one.
    kind, text = late('h{0,10} "a"', 10)
    rules = zip("cfgh", "dcfg", strict=True)
    endless = kind, text + "".join(f"\n{one} ::= {of}{{0,10}}" for one, of in rules)
    with Triton(tmp_path) as server:

        def short() -> Answer:
            return server.generate(PROMPT, 1)

        server.wait_ready()
        (engine,) = server.engines()
        answer, _, longest = beside(server, endless, short)
        assert "too costly: its tokens take too long" in answer.error
        assert longest < BOUND
        until(lambda: not server.generate(PROMPT, 3).error, seconds=30)
        assert engine not in server.engines()
        assert f"(signal {signal.SIGPROF})" in server.log.read_text()
        began = time.monotonic()
        again, _, _ = beside(server, endless, short)
        assert (again.tokens, again.error) == ([], answer.error)
        assert time.monotonic() - began < BOUND
        assert len(collect(guided(server, CHEAP[0])).tokens) > 0


def test_forms_beside_one_that_is_slow_are_never_refused_for_it(tmp_path: Path) -> None:
    form = ("json_schema", '{"properties": {"verdict": {"type": "string"}}}')
    with Triton(tmp_path) as server:
        server.wait_ready()

        def good() -> Answer:
            return collect(guided(server, form))

        assert not good().error
        said = []
        for _ in range(4):
            answer, others, longest = beside(server, thrice(12), good)
            said.append(answer.error)
            assert not any("too costly" in one.error for one in others)
            assert any(not one.error for one in others)
            assert longest < BOUND
            if not answer.tokens:
                break
            assert "its guide may be why" in answer.error or "engine process ended" in answer.error
        assert (said[-1], answer.tokens) == (answer.error, []), "it does not go on for ever"
        assert not good().error
