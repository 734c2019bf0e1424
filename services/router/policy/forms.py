"""Whether an answer has the form that was asked for.

Callers may add validators: JSON schema, regular expression, enumeration. What they say is not to be
trusted, so a check takes bounded time and memory: expressions run in RE2, which never backtracks,
schemas may refer to themselves only, and a check of one ends after so many steps.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from services.router.policy.effort import MAX_STEPS, Effort, TooMuch
from services.router.policy.expressions import NoGrammar
from services.router.policy.grammars import grammar
from services.router.policy.kept import NotKept
from services.router.policy.schema_rules import told as told_of
from services.router.policy.schemas import (
    MAX_RULE,
    NAMES_INSIDE,
    BadValidator,
    Schema,
    schema_of,
)

MAX_EXPRESSION_BYTES = 1 << 20
"""Memory of a compiled expression."""

MAX_SCHEMA_BYTES = 2 << 20
MAX_PATTERNS = 64
"""Expressions of one schema, and the memory of all of them together."""

MAX_PARTS = 1000
"""Schemas within a schema that engines are told: they make rules of each."""

BYTES_OF_STEP = 20
"""Of memory that RE2 may use, before it gives up."""

TOO_LARGE = "too large"
"""What RE2 says then."""

STEPS_OF_CLASS = 160
"""What a class of Unicode takes to read, such as ``\\pL``."""

OPTIONAL_OF_STEP = 500
"""RE2 looks at each pair of parts that may be left out, one after the other; a step is so many."""

STEPS_OF_SIZE = 64
"""Parts of a compiled expression that make each character of a text cost one more."""

COST_OF_REFERENCES = 1_000_000
"""A schema that refers to its parts may take all the steps of a check, however short it is."""

MAX_REPETITIONS = 40_000
"""Of an expression, all counts together. RE2 refuses such ones by their size, but only after it has
spent seconds and a gigabyte on them."""


class Untold(BadValidator):
    """One that may check answers, and cannot be told to an engine."""


@dataclass(frozen=True)
class Validator:
    """A compiled check of an answer's text; reused for every answer.

    Attributes:
        passes: whether a text passes; what finding out takes is counted, up to `TooMuch`.
        cost: what a check takes for each character of a text: 1 and more.
        grammar: what engines are told, where they are.
    """

    passes: Callable[[str, Effort], bool]
    cost: int = 1
    grammar: str = ""

    def holds(self, text: str) -> bool:
        """Whether a text passes, by itself."""
        return validate(text, (self,))


def validate(text: str, checks: Iterable[Validator]) -> bool:
    """Whether an answer passes every validator; without any it does.

    All together take so many steps; what takes more does not pass.
    """
    effort = Effort(MAX_STEPS)
    try:
        return all(check.passes(text, effort) for check in checks)
    except TooMuch:
        return False


def one_of(values: Iterable[str]) -> Validator:
    """The answer, without white space around it, is one of these.

    Raises:
        BadValidator: there are none.
    """
    wanted = frozenset(value.strip() for value in values)
    if not wanted:
        raise BadValidator("enum: must name at least one value")
    return Validator(lambda text, _: text.strip() in wanted)


def matching(expression: str, effort: Effort | None = None, *, told: bool = False) -> Validator:
    """The whole answer, as it is or without white space around it, matches (RE2 syntax).

    Args:
        expression: the expression.
        effort: what finding out takes is counted there.
        told: engines are told the expression too.

    Raises:
        BadValidator: it is too long, or RE2 does not know it: back-references and look-around
            cannot be checked in bounded time.
        Untold: it has no grammar.
    """
    effort = effort or Effort()
    compiled = _compiled(expression, "regex", effort)
    rules = _grammar(expression, effort) if told else ""
    cost = 1 + compiled.programsize // STEPS_OF_SIZE

    def passes(text: str, _: Effort) -> bool:
        if compiled.fullmatch(text) is not None:
            return True
        bare = text.strip()
        return len(bare) < len(text) and compiled.fullmatch(bare) is not None

    return Validator(passes, cost, rules)


def json_schema(
    schema: str | Mapping[str, Any], effort: Effort | None = None, *, told: bool = False
) -> Validator:
    """The answer is JSON that the schema accepts (draft 2020-12). The arguments: see `matching`.

    Raises:
        BadValidator: the schema is none, refers elsewhere, or needs what bounded time excludes.
        Untold: it holds what engines read otherwise, or cannot take: they cut names at the
            character NUL, make an automaton of each pattern, and rules of each part.
    """
    effort = effort or Effort()
    text = schema if isinstance(schema, str) else _written(schema)
    found = _read(text, effort)
    wanted = _patterns(found)
    if len(wanted) > MAX_PATTERNS:
        rule = f"json_schema: at most {MAX_PATTERNS} patterns, got {len(wanted)}"
        raise BadValidator(rule)
    share = min(MAX_EXPRESSION_BYTES, MAX_SCHEMA_BYTES // max(1, len(wanted)))
    patterns = {
        pattern: _compiled(pattern, place, effort, share) for pattern, place in wanted.items()
    }
    rules = _told(text, found, effort) if told else ""
    cost = COST_OF_REFERENCES if found.refers else len(text)
    return Validator(lambda answer, effort: found.accepts(answer, patterns, effort), cost, rules)


def _told(text: str, schema: Schema, effort: Effort) -> str:
    if len(schema.parts) > MAX_PARTS:
        raise Untold(f"json_schema: at most {MAX_PARTS} schemas inside, got {len(schema.parts)}")
    for place, part in schema.parts:
        for key in NAMES_INSIDE:
            if isinstance(part.get(key), dict) and "\0" in "".join(part[key]):
                raise Untold(f"{place}.{key}: the character NUL cannot be told")
    try:
        return told_of(text, effort)
    except NotKept as error:
        raise Untold(str(error)) from error


def _read(text: str, effort: Effort) -> Schema:
    try:
        return schema_of(text, effort)
    except TooMuch as error:
        raise BadValidator(f"json_schema: {error}") from error


def _written(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValidator(f"json_schema: is no JSON: {error}") from error


def _patterns(schema: Schema) -> dict[str, str]:
    """The expressions of a schema, equal ones once, with where they stand."""
    patterns = ((part.get("pattern"), place) for place, part in schema.parts)
    return {one: f"{place}.pattern" for one, place in patterns if isinstance(one, str)}


def _grammar(expression: str, effort: Effort) -> str:
    try:
        return grammar(expression, effort)
    except NoGrammar as error:
        raise Untold(f"regex: {error}") from error


_REPETITION = re.compile(r"\{(\d*)(?:,(\d*))?\}")


def repetitions(expression: str) -> list[int]:
    """The count of each ``{n}``, ``{n,}``, ``{n,m}`` and ``{,m}`` of an expression, the larger."""
    counts = (pair for pair in _REPETITION.findall(expression) if any(pair))
    return [max(_number(count) for count in pair if count) for pair in counts]


def _number(digits: str) -> int:
    """A whole number, of however many digits: the library reads some thousands of them."""
    return int(digits.lstrip("0")[:12] or "0")


_OPTIONAL = re.compile(r"(?<!\()\?|\{(\d*),(\d+)\}")


def _optional(expression: str) -> int:
    """At most so many parts of an expression may be left out, other than by ``*``."""
    return sum(
        _number(most) - min(_number(least), _number(most)) if most else 1
        for least, most in _OPTIONAL.findall(expression)
    )


def _compiled(
    expression: str, place: str, effort: Effort, most_bytes: int = MAX_EXPRESSION_BYTES
) -> Any:
    if len(expression) > MAX_RULE:
        raise BadValidator(f"{place}: at most {MAX_RULE} characters, got {len(expression)}")
    repeated = sum(repetitions(expression))
    if repeated > MAX_REPETITIONS:
        rule = f"repeats at most {MAX_REPETITIONS} times, all counts together"
        raise BadValidator(f"{place}: {rule}, got {repeated}")
    options = re2.Options()
    options.max_mem = most_bytes
    options.log_errors = False
    try:
        effort.spend(len(expression) // 4 + STEPS_OF_CLASS * len(_CLASS.findall(expression)))
        effort.spend(_optional(expression) ** 2 // OPTIONAL_OF_STEP)
        try:
            compiled = re2.compile(expression, options)
        except re2.error as error:
            if TOO_LARGE in _words(error):
                effort.spend(most_bytes // BYTES_OF_STEP)
            raise
        effort.spend(compiled.programsize)
    except UnicodeEncodeError as error:
        raise BadValidator(f"{place}: half a character cannot be matched") from error
    except TooMuch as error:
        raise BadValidator(f"{place}: {error}") from error
    except re2.error as error:
        raise BadValidator(f"{place}: RE2 does not take it: {_words(error)}") from error
    return compiled


def _words(error: Exception) -> str:
    what = error.args[0] if error.args else "unknown"
    return what.decode(errors="replace") if isinstance(what, bytes) else str(what)


_CLASS = re.compile(r"\\[pP]")
