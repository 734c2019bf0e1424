"""Wanted forms of answers: what the engine is told to keep to, and what a lower tier must pass."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import Violation
from services.router.policy.effort import MAX_EFFORT, Effort
from services.router.policy.forms import (
    Untold,
    Validator,
    json_schema,
    matching,
    one_of,
    repetitions,
)
from services.router.policy.schemas import BadValidator
from services.router.ports import GuideKind

MAX_COUNT = 1000
"""RE2's bound for one repetition; it reads higher ones as plain text, which an engine may not."""

MAX_VALIDATORS = 8
MAX_CHOICES = 1024

KEPT_FORMS = 64
"""Compiled forms that are kept, of some MB at most each; requests of one application mostly want
the same few."""

KEPT_REFUSALS = 4096
"""Forms that cannot be used, of which a hash and a sentence are kept: a repeat costs nothing."""

TOLD, CHECKED = "told", "checked"
"""What a form is for: to be told to an engine, or to check answers alone."""

Key = tuple[str, str, str]
"""What for, kind, text."""


@dataclass(frozen=True)
class Form:
    """What became of a form.

    Attributes:
        check: of an answer; None where the form cannot be used.
        rule: that it breaks then.
        effort: steps that finding out took.
    """

    check: Validator | None
    rule: str
    effort: int


class _Kept:
    """The forms used last; for several threads.

    Those that cannot be used are kept by their hash alone, so that any number of them takes no room
    from those that can.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: OrderedDict[Key, Form] = OrderedDict()
        self._refused: OrderedDict[bytes, Form] = OrderedDict()

    def get(self, key: Key) -> Form | None:
        with self._lock:
            if (form := self._forms.get(key)) is not None:
                self._forms.move_to_end(key)
                return form
        digest = _digest(key)
        with self._lock:
            if (form := self._refused.get(digest)) is not None:
                self._refused.move_to_end(digest)
            return form

    def put(self, key: Key, form: Form) -> None:
        digest = _digest(key)
        with self._lock:
            if form.check is None:
                self._refused[digest] = form
                if len(self._refused) > KEPT_REFUSALS:
                    self._refused.popitem(last=False)
                return
            self._forms[key] = form
            if len(self._forms) > KEPT_FORMS:
                self._forms.popitem(last=False)


def _digest(key: Key) -> bytes:
    return hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).digest()


_kept = _Kept()


def all_known(prompt: pb.Prompt, terms: pb.Terms) -> bool:
    """Whether each form of a request is kept, so that none has to be compiled."""
    return all(_kept.get(key) is not None for key in _keys(prompt, terms))


def _keys(prompt: pb.Prompt, terms: pb.Terms) -> Iterator[Key]:
    form = prompt.response_format
    if (kind := form.WhichOneof("format")) is not None:
        yield TOLD, kind, form.regex if kind == "regex" else form.json_schema
    for asked in terms.validators[:MAX_VALIDATORS]:
        if (check := asked.WhichOneof("check")) in ("regex", "json_schema"):
            yield CHECKED, check, asked.regex if check == "regex" else asked.json_schema


def guide_of(prompt: pb.Prompt, wrong: list[Violation]) -> tuple[tuple[GuideKind, str] | None, str]:
    """The wanted form and the grammar that engines are told; None and nothing for free text.

    Broken rules go into `wrong`.
    """
    form = prompt.response_format
    kind = form.WhichOneof("format")
    if kind is None:
        return None, ""
    text = form.regex if kind == "regex" else form.json_schema
    found = _form((TOLD, kind, text))
    if found.rule:
        wrong.append(Violation(f"prompt.response_format.{kind}", found.rule))
    return (GuideKind(kind), text), found.check.grammar if found.check is not None else ""


def validators_of(
    guide: tuple[GuideKind, str] | None, terms: pb.Terms, wrong: list[Violation]
) -> tuple[Validator, ...]:
    """What an answer must pass: the wanted form, then the caller's own checks."""
    if guide is None and not terms.validators:
        return ()
    forms, spent = [], _Spent()
    if guide is not None:  # if it breaks a rule, that was told with the prompt
        forms.append(spent.form((TOLD, guide[0].value, guide[1])))
    if len(terms.validators) > MAX_VALIDATORS:
        rule = f"at most {MAX_VALIDATORS}, got {len(terms.validators)}"
        wrong.append(Violation("terms.validators", rule))
        return ()
    for number, asked in enumerate(terms.validators):
        found = _check(asked, spent)
        if spent.effort > MAX_EFFORT >= found.effort:
            rule = "the forms of one request take too long to check, all together"
            wrong.append(Violation("terms.validators", rule))
            return ()
        if found.rule:
            kind = asked.WhichOneof("check")
            where = f"terms.validators[{number}]{'.' + kind if kind else ''}"
            wrong.append(Violation(where, found.rule))
        forms.append(found)
    return tuple(form.check for form in forms if form.check is not None)


class _Spent:
    """What the forms of one request take together, kept or not; equal ones count once."""

    def __init__(self) -> None:
        self.effort = 0
        self._seen: set[Key] = set()

    def form(self, key: Key) -> Form:
        form = _form(key, max(0, MAX_EFFORT - self.effort))
        if key not in self._seen:
            self._seen.add(key)
            self.effort += form.effort
        return form


def _check(asked: pb.Validator, spent: _Spent) -> Form:
    kind = asked.WhichOneof("check")
    if kind is None:
        return Form(None, "needs one of json_schema, regex, one_of", 0)
    if kind != "one_of":
        return spent.form((CHECKED, kind, asked.regex if kind == "regex" else asked.json_schema))
    if len(asked.one_of.values) > MAX_CHOICES:
        return Form(None, f"at most {MAX_CHOICES} values, got {len(asked.one_of.values)}", 0)
    try:
        return Form(one_of(asked.one_of.values), "", 0)
    except BadValidator as error:
        return Form(None, _is_none(error), 0)


def _form(key: Key, most: int = MAX_EFFORT) -> Form:
    """What becomes of a form; found out once, while it is kept.

    One that takes more than `most` steps, but not more than any may, is found out another time.
    """
    found = _kept.get(key)
    if found is None:
        found = _made(key, most)
        if not most < found.effort <= MAX_EFFORT:
            _kept.put(key, found)
    return found


def _made(key: Key, steps: int = MAX_EFFORT) -> Form:
    """Compiles a form within so many steps.

    Engines compile forms: what RE2 and the schema check refuse as unbounded would take a replica's
    time and memory away from everybody, and an expression that is no grammar cannot be told.
    """
    use, kind, text = key
    if not text.strip():
        return Form(None, "must not be empty", 0)
    if use == TOLD and kind == "regex" and (most := max(repetitions(text), default=0)) > MAX_COUNT:
        return Form(None, f"repeats at most {MAX_COUNT} times, got {most}", 0)
    effort, make = Effort(steps), matching if kind == "regex" else json_schema
    try:
        return Form(make(text, effort, told=use == TOLD), "", effort.spent)
    except Untold as error:
        return Form(None, _said(f"cannot be told to an engine: {error}"), effort.spent)
    except BadValidator as error:
        return Form(None, _is_none(error), effort.spent)


def _is_none(error: BadValidator) -> str:
    return _said(f"is not one: {str(error)[:200]}")


def _said(text: str) -> str:
    """Names in a schema may hold half a character, which no message can."""
    return text.encode(errors="backslashreplace").decode()
