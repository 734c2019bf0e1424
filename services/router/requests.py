"""Checks requests and fills in the route's defaults: from the wire to `Asked`.

Every broken rule of a request is reported at once, each under its field's path.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, NotFound, Violation
from services.router.policy.admission import Priority
from services.router.policy.certainty import BadValidator, json_schema, matching
from services.router.policy.routes import Policies, Route
from services.router.ports import Asked, Shape, Turn

ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
PRIORITIES = frozenset(pb.PriorityClass.values())
CACHE_USES = frozenset(pb.CacheUse.values())
PRINTABLE = re.compile(r"[\x20-\x7e]{1,128}")
REPETITION = re.compile(r"\{(\d*)(?:,(\d*))?\}")
MOST_REPETITIONS = 1000
"""RE2's bound; it reads longer counts as plain text, which an engine may not."""

MOST_MESSAGES = 1000
MOST_ATTRIBUTES = 16
LONGEST_ATTRIBUTE = 64
MOST_STOPS = 8
LONGEST_STOP = 64
MOST_TOP_K = 1024
HOTTEST = 2.0


class Request(Protocol):
    """What GenerateRequest, CompleteRequest and ExplainRequest have in common."""

    @property
    def route(self) -> str: ...  # noqa: D102
    @property
    def prompt(self) -> pb.Prompt: ...  # noqa: D102
    @property
    def sampling(self) -> pb.Sampling: ...  # noqa: D102
    @property
    def terms(self) -> pb.Terms: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that keeps every rule."""

    route: Route
    asked: Asked
    priority: Priority
    idempotency_key: str
    attributes: Mapping[str, str]
    read_cache: bool
    write_cache: bool


def check(request: Request, tenant: str, policies: Policies, *, longest: int) -> Checked:
    """Checks a request of `tenant`; `longest` bounds the characters of all messages together.

    Raises:
        NotFound: the tenant has no such route.
        BadRequest: with all violations.
    """
    if not request.route:
        raise BadRequest.of(Violation("route", "is required"))
    route = policies.routes.get(request.route)
    if route is None or not route.admits(tenant):  # the names of others' routes are not told
        raise NotFound(f"no route named {request.route[:80]!r}", reason="ROUTE_UNKNOWN")
    wrong: list[Violation] = []
    turns = _turns(request.prompt, longest, wrong)
    shape = _shape(request.prompt, wrong)
    asked = _asked(request.sampling, route, turns, shape, wrong)
    terms = request.terms
    _check_terms(terms, wrong)
    if wrong:
        raise BadRequest.of(*wrong)
    cache = route.cache.use and terms.cache_use != pb.CACHE_USE_BYPASS and asked.repeatable
    return Checked(
        route=route,
        asked=asked,
        priority=Priority(terms.priority) if terms.priority else Priority.INTERACTIVE,
        idempotency_key=terms.idempotency_key,
        attributes=dict(terms.attributes),
        read_cache=cache and terms.cache_use != pb.CACHE_USE_REFRESH,
        write_cache=cache,
    )


def _turns(prompt: pb.Prompt, longest: int, wrong: list[Violation]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    characters = 0
    if len(prompt.messages) > MOST_MESSAGES:
        rule = f"at most {MOST_MESSAGES}, got {len(prompt.messages)}"
        wrong.append(Violation("prompt.messages", rule))
        return ()
    for number, message in enumerate(prompt.messages):
        where = f"prompt.messages[{number}]"
        role = ROLES.get(message.role)
        if role is None:
            wrong.append(Violation(f"{where}.role", f"must be a known role, got {message.role}"))
            continue
        if role == "system" and number:
            wrong.append(Violation(f"{where}.role", "a system message can only be the first"))
        if not message.content.strip():
            wrong.append(Violation(f"{where}.content", "must not be empty"))
        characters += len(message.content)
        turns.append(Turn(role, message.content))
    if not prompt.messages:
        wrong.append(Violation("prompt.messages", "must hold at least one message"))
    elif turns and turns[-1].role != "user":
        wrong.append(Violation("prompt.messages", "the last message must have role user"))
    if characters > longest:
        wrong.append(
            Violation("prompt.messages", f"at most {longest} characters, got {characters}")
        )
    return tuple(turns)


def _shape(prompt: pb.Prompt, wrong: list[Violation]) -> tuple[Shape, str] | None:
    form = prompt.response_format
    kind = form.WhichOneof("format")
    if kind is None:
        return None
    text = form.regex if kind == "regex" else form.json_schema
    rule = _shape_rule(kind, text)
    if rule:
        wrong.append(Violation(f"prompt.response_format.{kind}", rule))
    return Shape(kind), text


@functools.lru_cache(maxsize=256)
def _shape_rule(kind: str, text: str) -> str:
    """The rule that a wanted form breaks; empty if none.

    Engines compile forms into automata: what RE2 and the schema check refuse as unbounded would
    take a replica's time and memory away from everybody.
    """
    if not text.strip():
        return "must not be empty"
    counts = [int(one) for pair in REPETITION.findall(text) for one in pair if one]
    if kind == "regex" and max(counts, default=0) > MOST_REPETITIONS:
        return f"repeats at most {MOST_REPETITIONS} times, got {max(counts)}"
    try:
        if kind == "regex":
            matching(text)
            re.compile(text)  # RE2 takes very deep ones
        else:
            json_schema(text)
    except (BadValidator, re.error, OverflowError, RecursionError) as error:
        return f"is not one: {str(error)[:200]}"
    return ""


def _asked(
    sampling: pb.Sampling,
    route: Route,
    turns: tuple[Turn, ...],
    shape: tuple[Shape, str] | None,
    wrong: list[Violation],
) -> Asked:
    tokens = route.default_output_tokens
    if sampling.HasField("max_output_tokens"):
        tokens = sampling.max_output_tokens
        _within("sampling.max_output_tokens", tokens, 1, route.max_output_tokens, wrong)
    temperature = sampling.temperature
    _within("sampling.temperature", temperature, 0.0, HOTTEST, wrong)
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    if not 0.0 < top_p <= 1.0:
        wrong.append(Violation("sampling.top_p", f"must be above 0 and at most 1, got {top_p:g}"))
    if sampling.HasField("top_k"):
        _within("sampling.top_k", sampling.top_k, 1, MOST_TOP_K, wrong)
    if len(sampling.stop) > MOST_STOPS:
        wrong.append(Violation("sampling.stop", f"at most {MOST_STOPS}, got {len(sampling.stop)}"))
    for number, stop in enumerate(sampling.stop):
        if not 1 <= len(stop) <= LONGEST_STOP:
            rule = f"must have 1 to {LONGEST_STOP} characters, got {len(stop)}"
            wrong.append(Violation(f"sampling.stop[{number}]", rule))
    return Asked(
        turns=turns,
        shape=shape,
        max_output_tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=sampling.top_k,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(sampling.stop),
    )


def _check_terms(terms: pb.Terms, wrong: list[Violation]) -> None:
    if terms.priority not in PRIORITIES:
        wrong.append(Violation("terms.priority", f"must be a known class, got {terms.priority}"))
    if terms.cache_use not in CACHE_USES:
        wrong.append(Violation("terms.cache_use", f"must be a known use, got {terms.cache_use}"))
    if terms.idempotency_key and not PRINTABLE.fullmatch(terms.idempotency_key):
        wrong.append(Violation("terms.idempotency_key", "1 to 128 printable ASCII characters"))
    if len(terms.attributes) > MOST_ATTRIBUTES:
        count = len(terms.attributes)
        wrong.append(Violation("terms.attributes", f"at most {MOST_ATTRIBUTES}, got {count}"))
    for key, value in terms.attributes.items():
        if not key or max(len(key), len(value)) > LONGEST_ATTRIBUTE:
            rule = f"keys and values of 1 to {LONGEST_ATTRIBUTE} characters"
            wrong.append(Violation("terms.attributes", rule))
            break


def _within(name: str, value: float, least: float, most: float, wrong: list[Violation]) -> None:
    if math.isnan(value) or not least <= value <= most:
        wrong.append(Violation(name, f"must be from {least:g} to {most:g}, got {value:g}"))
