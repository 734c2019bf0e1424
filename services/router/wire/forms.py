"""Wanted forms of answers: what the engine is told to keep to, and what a lower tier must pass."""

import functools
from collections.abc import Callable

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import Violation
from services.router.policy.expressions import NoGrammar
from services.router.policy.forms import (
    BadValidator,
    Validator,
    json_schema,
    matching,
    one_of,
    refuse_untold,
    repetitions,
)
from services.router.policy.grammars import grammar
from services.router.policy.kept import NotKept
from services.router.policy.schema_rules import told
from services.router.ports import GuideKind

MAX_COUNT = 1000
"""RE2's bound for one repetition; it reads higher ones as plain text, which an engine may not."""

MAX_VALIDATORS = 8
MAX_CHOICES = 1024

KEPT_FORMS = 64
"""Compiled forms that are kept, of some MB at most each; requests of one application mostly want
the same few."""


def guide_of(prompt: pb.Prompt, wrong: list[Violation]) -> tuple[GuideKind, str] | None:
    """The form that the engine is told; None for free text. Broken rules go into `wrong`."""
    form = prompt.response_format
    kind = form.WhichOneof("format")
    if kind is None:
        return None
    text = form.regex if kind == "regex" else form.json_schema
    found = _guide(kind, text)
    if isinstance(found, str):
        wrong.append(Violation(f"prompt.response_format.{kind}", found))
    return GuideKind(kind), text


def validators_of(
    guide: tuple[GuideKind, str] | None, terms: pb.Terms, wrong: list[Violation]
) -> tuple[Validator, ...]:
    """What an answer must pass: the wanted form, then the caller's own checks."""
    if guide is None and not terms.validators:
        return ()
    checks = []
    if guide is not None:  # if it breaks a rule, that was told with the prompt
        checks.append(_guide(guide[0].value, guide[1]))
    if len(terms.validators) > MAX_VALIDATORS:
        rule = f"at most {MAX_VALIDATORS}, got {len(terms.validators)}"
        wrong.append(Violation("terms.validators", rule))
        return ()
    for number, asked in enumerate(terms.validators):
        found = _check(asked)
        if isinstance(found, str):
            kind = asked.WhichOneof("check")
            where = f"terms.validators[{number}]{'.' + kind if kind else ''}"
            wrong.append(Violation(where, found))
        checks.append(found)
    return tuple(check for check in checks if isinstance(check, Validator))


def _check(asked: pb.Validator) -> Validator | str:
    """The check, or the rule it breaks."""
    kind = asked.WhichOneof("check")
    if kind is None:
        return "needs one of json_schema, regex, one_of"
    if kind == "one_of":
        if len(asked.one_of.values) > MAX_CHOICES:
            return f"at most {MAX_CHOICES} values, got {len(asked.one_of.values)}"
        return _made(lambda: one_of(asked.one_of.values))
    return _compiled(kind, asked.regex if kind == "regex" else asked.json_schema)


@functools.lru_cache(maxsize=KEPT_FORMS)
def _guide(kind: str, text: str) -> Validator | str:
    """A form for the engine, as a check; or the rule it breaks.

    Engines compile forms: what RE2 and the schema check refuse as unbounded would take a replica's
    time and memory away from everybody, and an expression that is no grammar cannot be told.
    """
    if kind == "regex" and (highest := max(repetitions(text), default=0)) > MAX_COUNT:
        return f"repeats at most {MAX_COUNT} times, got {highest}"
    found = _compiled(kind, text)
    if isinstance(found, str):
        return found
    try:
        if kind == "regex":
            grammar(text)
        else:
            refuse_untold(text)
            told(text)
    except (NoGrammar, BadValidator, NotKept) as error:
        return f"cannot be told to an engine: {error}"
    return found


@functools.lru_cache(maxsize=KEPT_FORMS)
def _compiled(kind: str, text: str) -> Validator | str:
    """A check of an answer, or the rule that it breaks."""
    if not text.strip():
        return "must not be empty"
    return _made(lambda: matching(text) if kind == "regex" else json_schema(text))


def _made(make: Callable[[], Validator]) -> Validator | str:
    try:
        return make()
    except (BadValidator, OverflowError, RecursionError) as error:
        return f"is not one: {str(error)[:200]}"
