"""How sure a model was of its own answer, and whether the answer has the form that was asked for.

Certainty comes from the log-probabilities of the generated tokens, natural logarithm throughout:
0 is sure, more negative is less sure. What an engine did not report, or reported in a way that
cannot be true, is unknown: None, never sure. (Engines exist that fill absent log-probabilities
with zeros.) Token log-probabilities as a cascade's check: Gupta et al., "Language Model Cascades:
Token-level Uncertainty and Beyond" (ICLR 2024), who find that the weakest tokens tell more than
the mean.

Callers and routes may add validators: JSON schema, regular expression, enumeration. They may come
from untrusted callers, so that a check takes bounded time: expressions run in RE2, which never
backtracks, schemas may refer to themselves only, and only so often a check.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import re2
from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry

NEAR_ZERO = 1e-4
"""A log-prob above zero by no more than this is rounding and counts as zero."""

LONGEST_RULE = 65_536
"""Characters of a schema or an expression."""

MOST_REFERENCES = 2_000
"""References a schema may follow in one check, so that one that multiplies itself ends."""

MOST_EXPRESSION_BYTES = 1 << 20
"""Memory of a compiled expression."""


class Measure(StrEnum):
    """Which number a route compares with its threshold; all are log-probs, higher is surer.

    LEARNED is not one of a `Certainty`: a model weighs all of them together with the prompt, see
    `calibration.Judgement`. FIRST_K alone can be had before the answer is complete.
    """

    MEAN = "mean"
    MINIMUM = "minimum"
    FIRST_K = "first_k"
    LEARNED = "learned"


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure a model was; log-probabilities, at most 0.

    Attributes:
        mean: over all tokens.
        minimum: of the least likely token.
        first_k: mean over the first k tokens, those a stream can hold back.
    """

    mean: float
    minimum: float
    first_k: float


def certainty_of(log_probs: Sequence[float], first_k: int) -> Certainty | None:
    """Sums up the log-probs of an answer, or of the tokens that are held back so far.

    Args:
        log_probs: one a token.
        first_k: how many tokens `Certainty.first_k` looks at, at least 1.

    Returns:
        None where certainty is unknown: no tokens, nothing but zeros, or a value that is no
        log-probability (positive, infinite, not a number).
    """
    if first_k < 1:
        raise ValueError(f"first_k must be at least 1, got {first_k}")
    if not log_probs:
        return None
    lowest, highest = min(log_probs), max(log_probs)
    total = sum(log_probs)  # not finite if any is not
    if not math.isfinite(total) or highest > NEAR_ZERO or lowest >= 0.0:
        return None
    first = log_probs[:first_k]
    return Certainty(
        mean=min(0.0, total / len(log_probs)),
        minimum=lowest,
        first_k=min(0.0, sum(first) / len(first)),
    )


def score(certainty: Certainty, measure: Measure) -> float:
    """The number that is compared with the threshold: a log-probability, at most 0."""
    if measure is Measure.MEAN:
        return certainty.mean
    if measure is Measure.MINIMUM:
        return certainty.minimum
    if measure is Measure.FIRST_K:
        return certainty.first_k
    raise ValueError(f"{measure} needs a model")


# --- the form of an answer ---------------------------------------------------------------------


class BadValidator(ValueError):
    """A validator that cannot be used; the message says which rule it breaks."""


@dataclass(frozen=True)
class Validator:
    """A compiled check of an answer's text; reused for every answer.

    Attributes:
        name: how it is called in reasons: `json_schema`, `regex`, `enum`.
        holds: whether a text passes.
    """

    name: str
    holds: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether an answer has the wanted form; `failed` names the first check it did not pass."""

    ok: bool
    failed: str = ""


def validate(text: str, checks: Iterable[Validator]) -> Validity:
    """Checks an answer against every validator, in order; without any it is fine."""
    for check in checks:
        if not check.holds(text):
            return Validity(ok=False, failed=check.name)
    return Validity(ok=True)


def one_of(values: Iterable[str]) -> Validator:
    """The answer, without white space around it, is one of these.

    Raises:
        BadValidator: there are none.
    """
    wanted = frozenset(value.strip() for value in values)
    if not wanted:
        raise BadValidator("enum: must name at least one value")
    return Validator("enum", lambda text: text.strip() in wanted)


def matching(expression: str) -> Validator:
    """The whole answer, without white space around it, matches the expression (RE2 syntax).

    Raises:
        BadValidator: it is too long, or RE2 does not know it: back-references and look-around
            cannot be checked in bounded time.
    """
    compiled = _compiled(expression, "regex")
    return Validator("regex", lambda text: compiled.fullmatch(text.strip()) is not None)


def json_schema(schema: str | Mapping[str, Any]) -> Validator:
    """The answer is JSON that the schema accepts (draft 2020-12).

    Raises:
        BadValidator: the schema is none, refers elsewhere, or needs what bounded time excludes.
    """
    told = _parsed(schema)
    patterns: dict[str, Any] = {}
    for place, part in _parts(told, "json_schema"):
        _refuse_unbounded(place, part)
        if isinstance(pattern := part.get("pattern"), str):
            patterns[pattern] = _compiled(pattern, place + ".pattern")
    try:
        Draft202012Validator.check_schema(told)
    except (SchemaError, RecursionError) as error:
        what = error.message if isinstance(error, SchemaError) else "too deeply nested"
        raise BadValidator(f"json_schema: is not one: {what}") from error
    return Validator("json_schema", lambda text: _accepts(told, patterns, text))


class _Endless(Exception):
    """A check followed more references than it may."""


def _accepts(schema: Mapping[str, Any], patterns: Mapping[str, Any], text: str) -> bool:
    followed = 0
    follow = Draft202012Validator.VALIDATORS["$ref"]

    def reference(validator: Any, to: Any, instance: Any, part: Any) -> Iterator[ValidationError]:
        nonlocal followed
        followed += 1
        if followed > MOST_REFERENCES:
            raise _Endless
        yield from follow(validator, to, instance, part) or ()

    def pattern(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str) and patterns[wanted].search(instance) is None:
            yield ValidationError("does not match")

    # A registry of its own: the library's default one would fetch what a schema refers to.
    extend: Callable[..., Any] = validators.extend
    kind = extend(Draft202012Validator, {"$ref": reference, "pattern": pattern})
    try:
        return bool(kind(schema, registry=Registry()).is_valid(json.loads(text)))
    except (ValueError, RecursionError, LookupError, _Endless):
        return False


def _parsed(schema: str | Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if len(text) > LONGEST_RULE:
            raise BadValidator(f"json_schema: at most {LONGEST_RULE} characters, got {len(text)}")
        told = json.loads(text)
    except (TypeError, RecursionError, json.JSONDecodeError) as error:
        raise BadValidator(f"json_schema: is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise BadValidator("json_schema: must be a JSON object")
    return told


NAMES_INSIDE = frozenset(("properties", "$defs", "definitions", "dependentSchemas"))
"""Keywords whose keys are names, not keywords."""

PLAIN_VALUES = frozenset(("enum", "const", "default", "examples"))
"""Keywords whose values are no schemas."""


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema within a schema, with where it stands."""
    waiting = [(place, schema, True)]
    while waiting:
        where, value, is_schema = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{where}[{at}]", one, True) for at, one in enumerate(value)]
        elif isinstance(value, dict):
            if is_schema:
                yield where, value
            waiting += [
                (f"{where}.{key}", inner, not (is_schema and key in NAMES_INSIDE))
                for key, inner in value.items()
                if not (is_schema and key in PLAIN_VALUES)
            ]


def _refuse_unbounded(place: str, part: Mapping[str, Any]) -> None:
    for keyword in ("patternProperties", "$dynamicRef", "$id", "$schema"):
        value = part.get(keyword)
        if keyword == "$schema" and str(value).rstrip("#").endswith("draft/2020-12/schema"):
            continue
        if value is not None:
            raise BadValidator(f"{place}.{keyword}: is not supported, got {value!r:.80}")
    to = part.get("$ref")
    if to is not None and not (isinstance(to, str) and to.startswith("#")):
        raise BadValidator(f"{place}.$ref: must stay within the schema, got {to!r:.80}")


def _compiled(expression: str, place: str) -> Any:
    if len(expression) > LONGEST_RULE:
        raise BadValidator(f"{place}: at most {LONGEST_RULE} characters, got {len(expression)}")
    options = re2.Options()
    options.max_mem = MOST_EXPRESSION_BYTES
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        what = error.args[0] if error.args else "unknown"
        said = what.decode() if isinstance(what, bytes) else what
        raise BadValidator(f"{place}: RE2 does not take it: {said}") from error
