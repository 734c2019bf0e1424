"""Each rule of a request, the field it is reported under, and the defaults that are filled in."""

import json
import math
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, NotFound
from services.router.policy.line import Priority
from services.router.policy.prompts import Message
from services.router.policy.routes import CachePolicy, Trimming
from services.router.policy.schema_rules import told
from services.router.ports import Asked, GuideKind
from services.router.wire.requests import (
    MANY_MESSAGES,
    MAX_MEMBERS,
    MAX_VALIDATORS,
    MEMBER_BYTES,
    MOST_NAMED,
    Checked,
    check,
    is_long,
    takes_long,
    weight,
)
from tests.making.policies import compiled, route

POLICIES = compiled(
    route("chat"),
    route("uncached", cache=CachePolicy(use=False, ttl_seconds=1, wait_seconds=0)),
    route("theirs", tenants=frozenset({"umbrella"})),
)
USER, SYSTEM, ASSISTANT = pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT


def asking(route: str = "chat", *messages: tuple[int, str], **rest: object) -> pb.GenerateRequest:
    request = pb.GenerateRequest(route=route, **rest)
    for role, content in messages or ((USER, "How?"),):
        request.prompt.messages.add(role=role, content=content)
    return request


def checked(request: pb.GenerateRequest, longest: int = 100) -> Checked:
    return check(request, "acme", POLICIES, longest=longest)


def broken(request: pb.GenerateRequest) -> dict[str, str]:
    """Field and rule of each violation."""
    with pytest.raises(BadRequest) as caught:
        checked(request)
    return {one.name: one.rule for one in caught.value.violations}


def numbered_attributes(letter: str) -> dict[str, str]:
    """As many as there may be, each as long as it may be."""
    return {f"{number:02}".ljust(64, letter): letter * 64 for number in range(16)}


def test_defaults_are_filled_in() -> None:
    got = checked(asking("chat", (SYSTEM, "Be kind."), (USER, "How?")))
    assert got.asked == Asked(
        messages=(Message("system", "Be kind."), Message("user", "How?")),
        guide=None,
        max_output_tokens=64,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        seed=None,
        stop=(),
    )
    assert got.priority is Priority.INTERACTIVE
    assert (got.read_cache, got.write_cache) == (True, True)
    assert (got.idempotency_key, got.attributes) == ("", {})


def test_what_is_said_is_kept() -> None:
    sampling = pb.Sampling(
        max_output_tokens=256, temperature=2, top_p=0.5, top_k=1024, seed=2**64 - 1, stop=["END"]
    )
    terms = pb.Terms(
        priority=pb.PRIORITY_CLASS_BATCH, idempotency_key="a b~", attributes={"team": "x"}
    )
    got = checked(asking(sampling=sampling, terms=terms))
    assert got.asked.max_output_tokens == 256
    assert (got.asked.temperature, got.asked.top_p, got.asked.top_k) == (2.0, 0.5, 1024)
    assert (got.asked.seed, got.asked.stop) == (2**64 - 1, ("END",))
    assert got.priority is Priority.BATCH
    assert (got.idempotency_key, got.attributes) == ("a b~", {"team": "x"})


@pytest.mark.parametrize("letter", ["x", "\N{GREEK SMALL LETTER OMEGA}", "\N{HIRAGANA LETTER A}"])
def test_the_most_attributes_of_any_script_are_taken(letter: str) -> None:
    attributes = numbered_attributes(letter)
    assert checked(asking(terms=pb.Terms(attributes=attributes))).attributes == attributes


@pytest.mark.parametrize("temperature", [0.0, -0.0, 1e-45, 1e-39, 1e-30, 9e-5])
def test_a_temperature_of_next_to_nothing_is_none(temperature: float) -> None:
    """Engines divide by it: they would write noise, and no form that was asked for."""
    got = checked(asking(sampling=pb.Sampling(temperature=temperature)))
    assert math.copysign(1.0, got.asked.temperature) == 1.0
    assert got.asked.temperature == 0.0
    assert got.read_cache  # it is greedy


def test_the_least_of_what_is_drawn_from_is_the_likeliest_token() -> None:
    found = [
        checked(asking(sampling=pb.Sampling(temperature=1e-3, top_p=top_p))).asked
        for top_p in (1e-45, 1e-39, 1e-4, 1e-3)
    ]
    assert [one.top_p for one in found] == pytest.approx([1e-4, 1e-4, 1e-4, 1e-3])
    assert [one.temperature for one in found] == pytest.approx([1e-3] * 4)


def test_an_unknown_route_is_not_found() -> None:
    with pytest.raises(NotFound, match="'nowhere'") as caught:
        checked(asking("nowhere"))
    assert caught.value.reason == "ROUTE_UNKNOWN"


def test_a_missing_route_is_a_violation() -> None:
    assert broken(asking("")) == {"route": "is required"}


def test_a_route_of_others_is_as_unknown_as_none() -> None:
    with pytest.raises(NotFound) as caught:
        checked(asking("theirs"))
    assert caught.value.reason == "ROUTE_UNKNOWN"


def sampled(**told: object) -> Callable[[], pb.GenerateRequest]:
    return lambda: asking(sampling=pb.Sampling(**told))


def termed(**told: object) -> Callable[[], pb.GenerateRequest]:
    return lambda: asking(terms=pb.Terms(**told))


def shaped(**told: str) -> Callable[[], pb.GenerateRequest]:
    def make() -> pb.GenerateRequest:
        request = asking()
        request.prompt.response_format.CopyFrom(pb.ResponseFormat(**told))
        return request

    return make


def silent() -> pb.GenerateRequest:
    return pb.GenerateRequest(route="chat")


def said(*messages: tuple[int, str]) -> Callable[[], pb.GenerateRequest]:
    return lambda: asking("chat", *messages)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (silent, "prompt.messages"),
        (said((USER, "")), "prompt.messages[0].content"),
        (said((USER, " \n\t")), "prompt.messages[0].content"),
        (said((0, "How?")), "prompt.messages[0].role"),
        (said((17, "How?")), "prompt.messages[0].role"),
        (said((USER, "How?"), (SYSTEM, "Be kind."), (USER, "So?")), "prompt.messages[1].role"),
        (said((USER, "How?"), (ASSISTANT, "So.")), "prompt.messages"),
        (said((SYSTEM, "Be kind.")), "prompt.messages"),
        (said((USER, "x" * 101)), "prompt.messages"),
        (said((USER, "x" * 50), (ASSISTANT, "y" * 50), (USER, "z")), "prompt.messages"),
        (shaped(regex="(unclosed"), "prompt.response_format.regex"),
        (shaped(regex="("), "prompt.response_format.regex"),
        (shaped(regex="a{99999999999999999999}"), "prompt.response_format.regex"),
        (shaped(regex="(" * 5000 + ")" * 5000), "prompt.response_format.regex"),
        (shaped(regex="((a{1,200}){1,200}){1,200}"), "prompt.response_format.regex"),
        (shaped(regex="a{400000000}"), "prompt.response_format.regex"),
        (shaped(regex=""), "prompt.response_format.regex"),
        (shaped(json_schema='{"pattern": ".*a.{12}"}'), "prompt.response_format.json_schema"),
        (
            shaped(json_schema='{"type": "number", "minimum": 0}'),
            "prompt.response_format.json_schema",
        ),
        (shaped(json_schema='{"enum": []}'), "prompt.response_format.json_schema"),
        (
            shaped(json_schema='{"type": "object", "properties": {"a\\" b": true}}'),
            "prompt.response_format.json_schema",
        ),
        (
            shaped(json_schema=json.dumps({"anyOf": [{"minimum": n} for n in range(1000)]})),
            "prompt.response_format.json_schema",
        ),
        (shaped(json_schema='{"pattern": "(.*a.{60}){3}"}'), "prompt.response_format.json_schema"),
        (shaped(regex="ab\0cd"), "prompt.response_format.regex"),
        (shaped(regex=r"ab\x00cd"), "prompt.response_format.regex"),
        (shaped(regex=r"\bword\b"), "prompt.response_format.regex"),
        (shaped(json_schema=r'{"pattern": "ab\u0000cd"}'), "prompt.response_format.json_schema"),
        (
            shaped(json_schema=r'{"properties": {"a\u0000b": {}}}'),
            "prompt.response_format.json_schema",
        ),
        (shaped(json_schema="{"), "prompt.response_format.json_schema"),
        (shaped(json_schema="[]"), "prompt.response_format.json_schema"),
        (shaped(json_schema=""), "prompt.response_format.json_schema"),
        (shaped(json_schema='{"a":' * 100_000), "prompt.response_format.json_schema"),
        (sampled(max_output_tokens=0), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=-1), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=257), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=2**31 - 1), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=-(2**31)), "sampling.max_output_tokens"),
        (sampled(temperature=-0.1), "sampling.temperature"),
        (sampled(temperature=2.1), "sampling.temperature"),
        (sampled(temperature=math.nan), "sampling.temperature"),
        (sampled(temperature=math.inf), "sampling.temperature"),
        (sampled(top_p=0), "sampling.top_p"),
        (sampled(top_p=1.01), "sampling.top_p"),
        (sampled(top_p=-math.inf), "sampling.top_p"),
        (sampled(top_p=math.nan), "sampling.top_p"),
        (sampled(top_k=0), "sampling.top_k"),
        (sampled(top_k=-5), "sampling.top_k"),
        (sampled(top_k=1025), "sampling.top_k"),
        (sampled(stop=["x"] * 9), "sampling.stop"),
        (sampled(stop=["x", ""]), "sampling.stop[1]"),
        (sampled(stop=["x" * 65]), "sampling.stop[0]"),
        (termed(priority=5), "terms.priority"),
        (termed(priority=-1), "terms.priority"),
        (termed(cache_use=3), "terms.cache_use"),
        (termed(idempotency_key="x" * 129), "terms.idempotency_key"),
        (termed(idempotency_key="é"), "terms.idempotency_key"),
        (termed(idempotency_key="line\n"), "terms.idempotency_key"),
        (termed(attributes={str(n): "" for n in range(17)}), "terms.attributes"),
        (termed(attributes={"": "x"}), "terms.attributes"),
        (termed(attributes={"x" * 65: "x"}), "terms.attributes"),
        (termed(attributes={"x": "x" * 65}), "terms.attributes"),
        (termed(attributes=numbered_attributes("\x01")), "terms.attributes"),
    ],
)
def test_a_broken_rule_is_reported_under_its_field(
    make: Callable[[], pb.GenerateRequest], field: str
) -> None:
    assert list(broken(make())) == [field]


def test_all_broken_rules_are_reported_at_once() -> None:
    request = asking(
        "chat",
        (0, "x"),
        (USER, ""),
        sampling=pb.Sampling(
            max_output_tokens=-1, temperature=math.nan, top_p=2, top_k=0, stop=[""]
        ),
        terms=pb.Terms(priority=9, cache_use=9, idempotency_key="\0", attributes={"": ""}),
    )
    request.prompt.response_format.regex = "("
    assert set(broken(request)) == {
        "prompt.messages[0].role",
        "prompt.messages[1].content",
        "prompt.response_format.regex",
        "sampling.max_output_tokens",
        "sampling.temperature",
        "sampling.top_p",
        "sampling.top_k",
        "sampling.stop[0]",
        "terms.priority",
        "terms.cache_use",
        "terms.idempotency_key",
        "terms.attributes",
    }


def test_no_violation_repeats_what_was_asked() -> None:
    marker = "MARKER"
    request = asking("chat", (ASSISTANT, marker * 50), sampling=pb.Sampling(stop=[marker * 20]))
    request.prompt.response_format.json_schema = marker
    request.terms.idempotency_key = marker + "\n"
    request.terms.attributes[marker * 20] = marker
    with pytest.raises(BadRequest) as caught:
        checked(request)
    assert marker not in str(caught.value)


@pytest.mark.parametrize(
    ("route", "sampling", "use", "read", "write"),
    [
        ("chat", pb.Sampling(), 0, True, True),
        ("chat", pb.Sampling(temperature=1), 0, False, False),
        ("chat", pb.Sampling(temperature=1, seed=0), 0, True, True),
        ("chat", pb.Sampling(), pb.CACHE_USE_BYPASS, False, False),
        ("chat", pb.Sampling(), pb.CACHE_USE_REFRESH, False, True),
        ("uncached", pb.Sampling(), 0, False, False),
        ("uncached", pb.Sampling(), pb.CACHE_USE_REFRESH, False, False),
    ],
)
def test_the_cache_is_used_where_route_and_request_and_sampling_agree(
    route: str, sampling: pb.Sampling, use: int, *, read: bool, write: bool
) -> None:
    got = checked(asking(route, sampling=sampling, terms=pb.Terms(cache_use=use)))
    assert (got.read_cache, got.write_cache) == (read, write)


@pytest.mark.parametrize(
    ("asked", "shape", "rules"),
    [
        (
            {"json_schema": '{"const": "é"}'},
            (GuideKind.JSON_SCHEMA, '{"const": "é"}'),
            told('{"const": "é"}'),
        ),
        ({"regex": "a+"}, (GuideKind.REGEX, "a+"), "root ::= r0+\nr0 ::= [a]\n"),
    ],
)
def test_the_shape_is_kept_with_its_grammar(
    asked: dict[str, str], shape: tuple[GuideKind, str], rules: str
) -> None:
    for _ in range(2):  # made, and kept
        got = checked(shaped(**asked)()).asked
        assert (got.guide, got.grammar) == (shape, rules)
    assert rules not in repr(got), "it follows from the guide, by which requests are told apart"


number = st.integers(-(2**31), 2**31 - 1)
real = st.floats(width=32)


@given(
    st.builds(
        pb.Sampling,
        max_output_tokens=st.none() | number,
        temperature=st.none() | real,
        top_p=st.none() | real,
        top_k=st.none() | number,
        seed=st.none() | st.integers(0, 2**64 - 1),
        stop=st.lists(st.text(max_size=70), max_size=10),
    ),
    st.builds(
        pb.Terms,
        priority=number,
        cache_use=number,
        idempotency_key=st.text(max_size=130),
        attributes=st.dictionaries(st.text(max_size=66), st.text(max_size=66), max_size=3),
    ),
    st.lists(st.tuples(number, st.text(max_size=20)), max_size=4),
)
def test_any_request_is_taken_or_refused_with_its_violations(
    sampling: pb.Sampling, terms: pb.Terms, messages: list[tuple[int, str]]
) -> None:
    request = pb.GenerateRequest(route="chat", sampling=sampling, terms=terms)
    for role, content in messages:
        request.prompt.messages.add(role=role, content=content)
    try:
        asked = checked(request).asked
    except BadRequest:
        assert broken(request)
        return
    assert 1 <= asked.max_output_tokens <= 256
    assert 0 <= asked.temperature <= 2
    assert 0 < asked.top_p <= 1
    assert 0 <= asked.top_k <= 1024
    assert asked.messages[-1].role == "user"


def test_what_the_caller_knows_and_wants_checked_is_kept() -> None:
    terms = pb.Terms(signals=pb.Signals(task_type="refund", retrieval_confidence=0.25))
    terms.validators.add(regex="[a-z]+")
    terms.validators.add().one_of.values.extend(["yes", "no"])
    terms.validators.add(json_schema='{"type": "object"}')
    got = checked(asking("chat", (USER, "one"), (ASSISTANT, "1"), (USER, "two"), terms=terms))
    assert (got.signals.task_type, got.signals.retrieval_confidence) == ("refund", 0.25)
    passed = {text: [one.holds(text) for one in got.validators] for text in ("yes", "so", "{}")}
    assert passed == {
        "yes": [True, True, False],
        "so": [True, False, False],
        "{}": [False, False, True],
    }
    assert got.written == "one\ntwo"
    assert checked(asking()).signals.retrieval_confidence is None
    assert checked(asking()).validators == ()


def test_the_wanted_form_is_a_check_too() -> None:
    request = asking()
    request.prompt.response_format.regex = "yes|no"
    (check_,) = checked(request).validators
    assert (check_.holds("yes"), check_.holds("perhaps")) == (True, False)


def test_passages_are_part_of_what_is_asked() -> None:
    request = asking()
    request.prompt.context.add(text="Known fact.", relevance=0.5)
    got = checked(request)
    assert got.asked.messages == (Message("user", "Known fact.\n\nHow?"),)
    assert got.written == "How?"
    assert got.shorter is None


def test_a_route_that_trims_keeps_both_forms_where_they_differ() -> None:
    told = compiled(route("chat", trimming=Trimming(white_space=True)))
    blank = check(asking("chat", (USER, "a   b")), "acme", told, longest=100)
    assert blank.asked.messages == (Message("user", "a   b"),)
    assert blank.shorter == (Message("user", "a b"),)
    assert check(asking(), "acme", told, longest=100).shorter is None


def test_every_broken_rule_of_checks_signals_and_passages_is_told() -> None:
    terms = pb.Terms(signals=pb.Signals(task_type="x" * 65, retrieval_confidence=1.5))
    terms.validators.add()
    terms.validators.add(regex="(")
    terms.validators.add().one_of.SetInParent()
    terms.validators.add(json_schema="{")
    request = asking(terms=terms)
    request.prompt.context.add(text=" ")
    request.prompt.context.add(text="x" * 100, relevance=math.nan)
    assert set(broken(request)) == {
        "terms.signals.task_type",
        "terms.signals.retrieval_confidence",
        "terms.validators[0]",
        "terms.validators[1].regex",
        "terms.validators[2].one_of",
        "terms.validators[3].json_schema",
        "prompt.context[0].text",
        "prompt.context[1].relevance",
        "prompt.context",
    }


def test_checks_choices_and_passages_are_bounded() -> None:
    terms = pb.Terms()
    for _ in range(9):
        terms.validators.add(regex="a")
    request = asking(terms=terms)
    for _ in range(257):
        request.prompt.context.add(text="a")
    assert set(broken(request)) == {"terms.validators", "prompt.context"}
    many = asking()
    many.terms.validators.add().one_of.values.extend(map(str, range(1025)))
    assert broken(many) == {"terms.validators[0].one_of": "at most 1024 values, got 1025"}


def test_too_many_of_anything_is_one_violation_and_none_of_them_is_looked_at() -> None:
    """Each costs a caller two bytes, and would cost us a violation."""
    request = asking(sampling=pb.Sampling(stop=[""] * 1000))
    request.prompt.context.extend([pb.Passage()] * 1000)
    request.terms.validators.extend([pb.Validator()] * 1000)
    request.terms.attributes.update({str(number): "x" * 65 for number in range(1000)})
    assert broken(request) == {
        "sampling.stop": "at most 8, got 1000",
        "prompt.context": "at most 256, got 1000",
        "terms.validators": "at most 8, got 1000",
        "terms.attributes": "at most 16, got 1000",
    }
    request = asking()
    request.prompt.messages.extend([pb.Message()] * 1000)
    assert broken(request) == {"prompt.messages": "at most 1000, got 1001"}


def test_only_what_is_checked_quickly_is_checked_among_other_requests() -> None:
    assert not takes_long(asking())
    assert takes_long(asking("chat", (USER, "x" * 20_000)))
    for characters, aside in ((7_000, False), (9_000, True)):
        compared = asking("chat", (USER, "x" * characters))
        assert not takes_long(compared)
        compared.prompt.context.add(text="x")  # its words are compared with those
        assert takes_long(compared) is aside
    request = asking()
    request.prompt.response_format.regex = "yes|never asked before"
    assert takes_long(request)
    checked(request)
    assert not takes_long(request)
    request.terms.validators.add().json_schema = '{"title": "nor this"}'
    assert takes_long(request)
    checked(request)
    assert not takes_long(request)
    request.terms.validators.add(regex="yes|never asked before")  # here it is not told
    assert takes_long(request)


EMPTY_MEMBERS: dict[str, Callable[[pb.GenerateRequest, int], object]] = {
    "prompt.messages": lambda one, n: one.prompt.messages.extend([pb.Message()] * n),
    "prompt.context": lambda one, n: one.prompt.context.extend([pb.Passage()] * n),
    "sampling.stop": lambda one, n: one.sampling.stop.extend([""] * n),
    "terms.attributes": lambda one, n: one.terms.attributes.update({str(k): "" for k in range(n)}),
    "terms.validators": lambda one, n: one.terms.validators.extend([pb.Validator()] * n),
    "terms.validators.one_of.values": lambda one, n: (
        one.terms.validators.add().one_of.values.extend([""] * (n - 1))
    ),
}


def lists_of(kind: Descriptor, path: str = "") -> Iterator[str]:
    for one in kind.fields:
        if one.is_repeated:
            yield path + one.name
        if one.message_type is not None and not one.message_type.GetOptions().map_entry:
            yield from lists_of(one.message_type, f"{path}{one.name}.")


def test_each_list_of_a_request_counts() -> None:
    assert set(lists_of(pb.GenerateRequest.DESCRIPTOR)) == set(EMPTY_MEMBERS)


@pytest.mark.parametrize("name", EMPTY_MEMBERS)
def test_a_member_counts_beside_its_bytes_and_too_many_are_refused(name: str) -> None:
    request = pb.GenerateRequest()
    EMPTY_MEMBERS[name](request, 100)
    assert weight(request) == request.ByteSize() + 100 * MEMBER_BYTES
    request = pb.GenerateRequest()
    EMPTY_MEMBERS[name](request, MAX_MEMBERS + 1)
    with pytest.raises(BadRequest) as caught:
        weight(request)
    assert [one.name for one in caught.value.violations] == [name]


def test_of_too_many_validators_none_is_looked_at() -> None:
    one = pb.Validator(one_of=pb.Choices(values=["x"]))
    request = pb.GenerateRequest(terms=pb.Terms(validators=[one] * 9))
    assert weight(request) == request.ByteSize() + (9 + MAX_VALIDATORS) * MEMBER_BYTES


def test_many_messages_are_checked_beside_other_requests_however_short() -> None:
    few, many = (asking("chat", *[(USER, "x")] * n) for n in (MANY_MESSAGES, MANY_MESSAGES + 1))
    assert not takes_long(few)
    assert takes_long(many)
    assert is_long(many)


def test_broken_rules_are_looked_for_until_there_are_more_than_are_told() -> None:
    request = asking("chat", *[(SYSTEM, "")] * 500)
    request.prompt.context.extend([pb.Passage(relevance=math.nan)] * 200)
    with pytest.raises(BadRequest, match=r"and \d+ more$") as caught:
        checked(request)
    told = len(caught.value.violations)
    more = int(str(caught.value).split()[-2])
    assert MOST_NAMED <= told + more < 3 * MOST_NAMED
