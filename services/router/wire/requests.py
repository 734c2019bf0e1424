"""Checks requests and fills in the route's defaults: from the wire to `Checked`.

Every broken rule of a request is reported at once, each under its field's path.
"""

import math
import re
from typing import Protocol

import orjson

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, NotFound, Violation
from services.router.policy.difficulty import Signals
from services.router.policy.line import Priority
from services.router.policy.prompts import Message, Passage, trimmed, with_passages
from services.router.policy.routes import Route
from services.router.ports import Asked, GuideKind
from services.router.request.checked import Checked
from services.router.routes.compiled import Compiled
from services.router.wire.forms import MAX_VALIDATORS, all_known, guide_of, validators_of

ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
PRIORITIES = frozenset(pb.PriorityClass.values())
CACHE_USES = frozenset(pb.CacheUse.values())
PRINTABLE = re.compile(r"[\x20-\x7e]{1,128}")

MAX_MESSAGES = 1000
MAX_PASSAGES = 256
MAX_ATTRIBUTES = 16
MAX_ATTRIBUTE_CHARACTERS = 64
MAX_ATTRIBUTE_BYTES = 8192
"""Of all attributes together as the ledger's line has them: 16 times 128 letters of any script, not
as many control characters, each of which takes six bytes there."""
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 64
MAX_TOP_K = 1024
MAX_TEMPERATURE = 2.0

LEAST_TEMPERATURE = 1e-4
"""What is less draws the likeliest token too, and counts as 0: engines divide by it, which ends in
noise where the smallest numbers are lost."""

LEAST_TOP_P = 1e-4
"""What is less leaves the likeliest token alone too, and counts as this."""

MAX_MEMBERS = 16_384
"""Of all lists of a request together: more than each may have by the rules."""

MEMBER_BYTES = 64
"""What an empty member of a list takes in memory."""

LONG_REQUEST = 16_000
"""Bytes of a request above which checking it takes milliseconds."""

LONG_WITH_PASSAGES = 8_000
"""The same of one with passages, whose words are compared where the route trims them."""

MANY_MESSAGES = 200
"""Above which checking them takes a millisecond, however short they are."""

MOST_NAMED = 32
"""Broken rules of messages, or of passages, beyond which no further ones are looked for: fewer are
told, and of a thousand messages each may break two."""


class Request(Protocol):
    """What GenerateRequest, CompleteRequest and ExplainRequest have in common."""

    @property
    def route(self) -> str: ...  # noqa: D102 -- said above
    @property
    def prompt(self) -> pb.Prompt: ...  # noqa: D102 -- said above
    @property
    def sampling(self) -> pb.Sampling: ...  # noqa: D102 -- said above
    @property
    def terms(self) -> pb.Terms: ...  # noqa: D102 -- said above
    def ByteSize(self) -> int: ...  # noqa: D102, N802 -- said above; the name is protobuf's


def weight(request: Request) -> int:
    """Bytes that a request counts for: its own, and what each member of its lists takes beside.

    Two bytes on the wire may be an empty message of fifty here.

    Raises:
        BadRequest: its lists are longer together than those of any request may be.
    """
    prompt, terms = request.prompt, request.terms
    lists = {
        "prompt.messages": len(prompt.messages),
        "prompt.context": len(prompt.context),
        "sampling.stop": len(request.sampling.stop),
        "terms.attributes": len(terms.attributes),
        "terms.validators": len(terms.validators),
    }
    members = sum(lists.values())
    if members <= MAX_MEMBERS:
        # Of more validators, which are refused, each would have to be looked at.
        lists["terms.validators.one_of.values"] = choices = sum(
            len(validator.one_of.values) for validator in terms.validators[:MAX_VALIDATORS]
        )
        members += choices
    if members > MAX_MEMBERS:
        longest = max(lists, key=lists.__getitem__)
        raise BadRequest.of(Violation(longest, f"far too many: {lists[longest]}"))
    return request.ByteSize() + MEMBER_BYTES * members


def is_long(request: Request) -> bool:
    """Whether its length alone makes checking it take long."""
    if len(request.prompt.messages) > MANY_MESSAGES:
        return True
    return request.ByteSize() > (LONG_WITH_PASSAGES if request.prompt.context else LONG_REQUEST)


def takes_long(request: Request) -> bool:
    """Whether checking it would hold up other requests, so that it belongs into a thread."""
    if is_long(request):
        return True
    # However short a form is, only compiling it tells how long that takes.
    return not all_known(request.prompt, request.terms)


def check(request: Request, tenant: str, compiled: Compiled, *, longest: int) -> Checked:
    """Checks a request of `tenant`; `longest` bounds the characters of all messages together.

    Raises:
        NotFound: the tenant has no such route.
        BadRequest: with all violations.
    """
    if not request.route:
        raise BadRequest.of(Violation("route", "is required"))
    route = compiled.policies.routes.get(request.route)
    if route is None or not route.admits(tenant):  # the names of others' routes are not told
        raise NotFound(f"no route named {request.route[:80]!r}", reason="ROUTE_UNKNOWN")
    wrong: list[Violation] = []
    messages = _messages(request.prompt, longest, wrong)
    passages = _passages(request.prompt, longest, wrong)
    guide, rules = guide_of(request.prompt, wrong)
    terms = request.terms
    validators = validators_of(guide, terms, wrong)
    _check_terms(terms, wrong)
    whole = with_passages(messages, passages) if messages else ()
    asked = _asked(request.sampling, whole, (guide, rules), route, wrong)
    if wrong:
        raise BadRequest.of(*wrong)
    shorter = trimmed(messages, passages, route.trimming) if route.trimming.on else None
    cache = route.cache.use and terms.cache_use != pb.CACHE_USE_BYPASS and asked.repeatable
    return Checked(
        compiled=compiled.route(route.name),
        asked=asked,
        shorter=shorter if shorter != asked.messages else None,
        written="\n".join([message.content for message in messages if message.role == "user"]),
        signals=_signals(terms),
        validators=validators,
        priority=Priority(terms.priority) if terms.priority else Priority.INTERACTIVE,
        idempotency_key=terms.idempotency_key,
        attributes=dict(terms.attributes),
        read_cache=cache and terms.cache_use != pb.CACHE_USE_REFRESH,
        write_cache=cache,
    )


def _messages(prompt: pb.Prompt, longest: int, wrong: list[Violation]) -> tuple[Message, ...]:
    messages: list[Message] = []
    characters = 0
    if len(prompt.messages) > MAX_MESSAGES:
        rule = f"at most {MAX_MESSAGES}, got {len(prompt.messages)}"
        wrong.append(Violation("prompt.messages", rule))
        return ()
    for number, message in enumerate(prompt.messages):
        if len(wrong) >= MOST_NAMED:
            return ()
        where, content = f"prompt.messages[{number}]", message.content
        role = ROLES.get(message.role)
        if role is None:
            wrong.append(Violation(f"{where}.role", f"must be a known role, got {message.role}"))
            continue
        if role == "system" and number:
            wrong.append(Violation(f"{where}.role", "a system message can only be the first"))
        if not content.strip():
            wrong.append(Violation(f"{where}.content", "must not be empty"))
        characters += len(content)
        messages.append(Message(role, content))
    if not prompt.messages:
        wrong.append(Violation("prompt.messages", "must hold at least one message"))
    elif messages and messages[-1].role != "user":
        wrong.append(Violation("prompt.messages", "the last message must have role user"))
    if characters > longest:
        wrong.append(
            Violation("prompt.messages", f"at most {longest} characters, got {characters}")
        )
    return tuple(messages)


def _passages(prompt: pb.Prompt, longest: int, wrong: list[Violation]) -> tuple[Passage, ...]:
    if not prompt.context:
        return ()
    if len(prompt.context) > MAX_PASSAGES:
        rule = f"at most {MAX_PASSAGES}, got {len(prompt.context)}"
        wrong.append(Violation("prompt.context", rule))
        return ()
    for number, passage in enumerate(prompt.context):
        if len(wrong) >= 2 * MOST_NAMED:  # those of messages may be there
            return ()
        where = f"prompt.context[{number}]"
        if not passage.text.strip():
            wrong.append(Violation(f"{where}.text", "must not be empty"))
        if not math.isfinite(passage.relevance):
            wrong.append(Violation(f"{where}.relevance", "must be a finite number"))
    characters = sum(len(passage.text) for passage in prompt.context)
    characters += sum(len(message.content) for message in prompt.messages)
    if characters > longest:
        rule = f"at most {longest} characters with the messages, got {characters}"
        wrong.append(Violation("prompt.context", rule))
    return tuple(
        Passage(passage.text, passage.relevance if passage.HasField("relevance") else None)
        for passage in prompt.context
    )


def _asked(
    sampling: pb.Sampling,
    messages: tuple[Message, ...],
    form: tuple[tuple[GuideKind, str] | None, str],
    route: Route,
    wrong: list[Violation],
) -> Asked:
    """What is asked and how the answer is drawn; `form` is its guide and that as a grammar."""
    tokens = route.output_tokens.default
    if sampling.HasField("max_output_tokens"):
        tokens = sampling.max_output_tokens
        _within("sampling.max_output_tokens", tokens, 1, route.output_tokens.most, wrong)
    temperature = sampling.temperature
    _within("sampling.temperature", temperature, 0.0, MAX_TEMPERATURE, wrong)
    if temperature < LEAST_TEMPERATURE:
        temperature = 0.0
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    if not 0.0 < top_p <= 1.0:
        wrong.append(Violation("sampling.top_p", f"must be above 0 and at most 1, got {top_p:g}"))
    if sampling.HasField("top_k"):
        _within("sampling.top_k", sampling.top_k, 1, MAX_TOP_K, wrong)
    return Asked(
        messages=messages,
        guide=form[0],
        max_output_tokens=tokens,
        temperature=temperature,
        top_p=max(top_p, LEAST_TOP_P),
        top_k=sampling.top_k,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=_stops(sampling, wrong),
        grammar=form[1],
    )


def _stops(sampling: pb.Sampling, wrong: list[Violation]) -> tuple[str, ...]:
    if len(sampling.stop) > MAX_STOPS:
        wrong.append(Violation("sampling.stop", f"at most {MAX_STOPS}, got {len(sampling.stop)}"))
        return ()
    for number, stop in enumerate(sampling.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            rule = f"must have 1 to {MAX_STOP_CHARACTERS} characters, got {len(stop)}"
            wrong.append(Violation(f"sampling.stop[{number}]", rule))
    return tuple(sampling.stop)


def _check_terms(terms: pb.Terms, wrong: list[Violation]) -> None:
    if terms.priority not in PRIORITIES:
        wrong.append(Violation("terms.priority", f"must be a known class, got {terms.priority}"))
    if terms.cache_use not in CACHE_USES:
        wrong.append(Violation("terms.cache_use", f"must be a known use, got {terms.cache_use}"))
    if terms.idempotency_key and not PRINTABLE.fullmatch(terms.idempotency_key):
        wrong.append(Violation("terms.idempotency_key", "1 to 128 printable ASCII characters"))
    if len(terms.attributes) > MAX_ATTRIBUTES:
        count = len(terms.attributes)
        wrong.append(Violation("terms.attributes", f"at most {MAX_ATTRIBUTES}, got {count}"))
    elif any(
        not key or max(len(key), len(value)) > MAX_ATTRIBUTE_CHARACTERS
        for key, value in terms.attributes.items()
    ):
        rule = f"keys and values of 1 to {MAX_ATTRIBUTE_CHARACTERS} characters"
        wrong.append(Violation("terms.attributes", rule))
    elif terms.attributes and len(orjson.dumps(dict(terms.attributes))) > MAX_ATTRIBUTE_BYTES:
        rule = f"at most {MAX_ATTRIBUTE_BYTES} bytes of JSON together"
        wrong.append(Violation("terms.attributes", rule))
    signals = terms.signals
    if len(signals.task_type) > MAX_ATTRIBUTE_CHARACTERS:
        rule = f"at most {MAX_ATTRIBUTE_CHARACTERS} characters, got {len(signals.task_type)}"
        wrong.append(Violation("terms.signals.task_type", rule))
    if signals.HasField("retrieval_confidence"):
        name = "terms.signals.retrieval_confidence"
        _within(name, signals.retrieval_confidence, 0.0, 1.0, wrong)


def _signals(terms: pb.Terms) -> Signals:
    given = terms.signals
    known = given.HasField("retrieval_confidence")
    return Signals(
        task_type=given.task_type or None,
        retrieval_confidence=given.retrieval_confidence if known else None,
    )


def _within(name: str, value: float, least: float, most: float, wrong: list[Violation]) -> None:
    if math.isnan(value) or not least <= value <= most:
        wrong.append(Violation(name, f"must be from {least:g} to {most:g}, got {value:g}"))
