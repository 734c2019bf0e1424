"""Reads configuration once, checks all of it and says precisely what is wrong.

A configuration is a frozen dataclass, ``pydantic.dataclasses.dataclass`` for its checks. It comes
from the environment (``from_environment``) or from a YAML file (``load_document``). What is wrong
with it raises `ConfigError`, which names file, line, key, rule and value and stops the start.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from services.common.plain_files import read_plain
from services.common.rules import MEANT, NO_SUCH_KEY, NUMBER, PLAIN_DIGITS, rule_of, spelled
from services.common.strict_yaml import Place, Tree, YamlProblem, read_tree

T = TypeVar("T")

MAX_BYTES = 1 << 20
"""Of a YAML file."""

MAX_SHOWN = 80
"""Characters of a value that an error tells."""

MAX_SHOWN_KEY = 200
"""Characters of a place that an error tells."""

STRICT = ConfigDict(extra="forbid")
"""What every configuration dataclass uses, beside ``frozen=True``: unknown keys are mistakes."""

Name = Annotated[
    str,
    spelled(
        r"[a-z0-9][a-z0-9._-]{0,62}",
        "must be a name of at most 63 characters: small letters, digits, '.', '_' and '-', the "
        "first a letter or a digit",
    ),
]
"""How things that operators name are called: routes, tiers, models, routers."""

TENANT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
TenantName = Annotated[
    str,
    spelled(
        TENANT_PATTERN,
        "must be a name of at most 63 characters: small letters, digits, '_' and '-', the first "
        "a letter or a digit",
    ),
]


MAX_PROBLEMS = 20
"""Problems of one source that are told; of the others only how many there are."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One value that breaks a rule.

    Attributes:
        rule: what is wrong, in words that say what would be valid.
        line: in its file; 0: none.
        key: its place in the file, or the variable; empty: it is no single one.
        value: what stands there, shortened; empty: nothing, or the rule says it.
    """

    rule: str
    line: int = 0
    key: str = ""
    value: str = ""

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        got = f", got {self.value}" if self.value else ""
        return f"{line}{key}{self.rule}{got}"


class ConfigError(Exception):
    """Configuration that cannot be used.

    Attributes:
        source: file, or "environment".
        details: what is wrong, each value by itself.
        problems: the same, a sentence each: place, rule, value.
    """

    def __init__(self, source: str, problems: Iterable[str | Problem]) -> None:
        self.source = source
        self.details = tuple(
            Problem(problem) if isinstance(problem, str) else problem for problem in problems
        )
        self.problems = [str(problem) for problem in self.details]
        super().__init__(f"{source}: " + "; ".join(self.problems))


def prefix_of(service: str) -> str:
    """What the names of a service's variables begin with."""
    return f"PENNYWEIGHT_{service.upper()}_"


def from_environment(kind: type[T], prefix: str, environ: Mapping[str, str]) -> T:
    """Builds a configuration from the variables ``<prefix><FIELD>``.

    A variable with the prefix that no field bears is refused: it is a misspelt one.

    Raises:
        ConfigError: a value breaks its field's rule, or a variable belongs to no field; so too
            where `kind` itself raises one, for a rule over several settings.
    """
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    found = {
        name.removeprefix(prefix).lower(): value
        for name, value in environ.items()
        if name.startswith(prefix)
    }
    values = {name: value for name, value in found.items() if value != ""}
    problems: list[str | Problem] = [
        Problem("no such setting", key=prefix + name.upper())
        for name in sorted(values.keys() - fields)
    ]
    adapter = TypeAdapter(kind)
    try:
        result = adapter.validate_python({k: v for k, v in values.items() if k in fields})
    except ValidationError as error:
        problems += [
            Problem(
                rule_of(wrong),
                # without a place: a rule over several settings
                key=prefix + (".".join(map(str, wrong["loc"])).upper() if wrong["loc"] else "*"),
                value=_shown(wrong["input"]) if wrong["loc"] else "",
            )
            for wrong in error.errors(include_url=False)
        ]
        raise ConfigError("environment", problems) from error
    except ConfigError as error:
        raise ConfigError("environment", [*problems, *error.details]) from error
    problems += [
        Problem(NUMBER, key=prefix + name.upper(), value=_shown(value))
        for name, value in sorted(values.items())
        if name in fields and _is_odd_number(value, getattr(result, name))
    ]
    if problems:
        raise ConfigError("environment", problems)
    return result


@dataclasses.dataclass(frozen=True)
class Document(Generic[T]):
    """A YAML document that was read and checked.

    Attributes:
        content: what it holds.
        source: names it in errors.
    """

    content: T
    source: str
    _tree: Tree

    def line(self, place: Place) -> int:
        """Line of the deepest part of the place that the document has."""
        return self._tree.line(place)

    def refuse(self, broken: Iterable[tuple[Place, str]]) -> None:
        """Refuses the document for rules over several values; each with the place it is said at.

        Raises:
            ConfigError: any rule is broken.
        """
        problems = self.told(broken)
        if problems:
            raise ConfigError(self.source, problems)

    def told(self, said: Iterable[tuple[Place, str]]) -> tuple[Problem, ...]:
        """What is said of places, with their lines: the first ones, and how many there are more."""
        found = _first(list(said), lambda one: self._problem(one[0], one[1]))
        return tuple(Problem(one) if isinstance(one, str) else one for one in found)

    def has(self, place: Place) -> bool:
        """Whether the document has such a key, whatever stands there."""
        above = self._tree.data_at(place[:-1])
        return isinstance(above, Mapping) and place[-1] in above

    def _problem(self, place: Place, said: str) -> Problem:
        rule, _, value = said.partition(", got ")
        if value and self._tree.data_at(place) == value:  # a text, which stands in quotes
            value = _shown(value)
        return Problem(rule, self.line(place), ".".join(map(str, place)), value)


def load_document(path: Path, kind: type[T]) -> Document[T]:
    """Reads a YAML file into a checked dataclass.

    Raises:
        ConfigError: the file is missing, is not YAML, or a value breaks its rule.
    """
    try:
        text = read_plain(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [unread(error)]) from error
    return parse_document(text, kind, source=str(path))


def unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, in words and not in numbers."""
    if isinstance(error, UnicodeDecodeError):
        return "cannot be read: it is not UTF-8 text"
    return f"cannot be read: {error.strerror or error}"


def parse_document(text: str, kind: type[T], *, source: str) -> Document[T]:
    """Parses YAML text into a checked dataclass; `source` names it in errors.

    Raises:
        ConfigError: it is not YAML, a key appears twice, or a value breaks its rule.
    """
    try:
        tree = read_tree(text)
    except YamlProblem as error:
        raise ConfigError(source, [Problem(error.what, error.line)]) from error
    # As JSON, because only there lists and texts become tuples, sets, names and paths while no
    # text becomes a number: quotes and odd spellings are not guessed at.
    data = json.dumps({} if tree.data is None else tree.data)
    try:
        content = TypeAdapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        raise ConfigError(source, _first(wrong, lambda one: _problem(one, tree, kind))) from error
    return Document(content, source, tree)


def die(error: ConfigError) -> None:
    """Prints what is wrong with the configuration and ends the process with status 2."""
    lines = "\n".join(f"  {problem}" for problem in error.problems)
    sys.stderr.write(f"pennyweight: bad configuration in {error.source}\n{lines}\n")
    raise SystemExit(2)


Wrong = TypeVar("Wrong")


def _first(wrong: Sequence[Wrong], told: Callable[[Wrong], Problem]) -> list[str | Problem]:
    """The first problems, and how many there are besides: a broken file may have thousands."""
    more = len(wrong) - MAX_PROBLEMS
    found: list[str | Problem] = [told(one) for one in wrong[:MAX_PROBLEMS]]
    return [*found, f"and {more:,} more problems"] if more > 0 else found


def _problem(wrong: ErrorDetails, tree: Tree, kind: Any) -> Problem:
    place = tuple(part for part in wrong["loc"] if part != "[key]")  # a key itself is wrong
    rule = rule_of(wrong)
    if rule == NO_SUCH_KEY and (keys := _keys_at(kind, place[:-1])):
        meant = _meant(str(place[-1]), keys)
        there = f"here are {', '.join(keys)}"
        rule += f"; {MEANT} {meant}? T{there}" if meant else f"; t{there}"
    return Problem(
        rule,
        tree.line(place),
        ".".join(str(part) for part in place)[:MAX_SHOWN_KEY],
        "" if wrong["type"] in _KEY_IS_WRONG else _shown(wrong["input"]),
    )


_KEY_IS_WRONG = ("missing", "unexpected_keyword_argument", "extra_forbidden")
"""What is said of a key, whatever its value."""


def _meant(key: str, keys: Sequence[str]) -> str:
    """The key that was meant, of those that there are; empty: none is near.

    What others spell ``stabilizationWindowSeconds`` and ``minReplicas`` is near too.
    """
    spelt = re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", key).lower()
    near = get_close_matches(spelt, keys, n=1)
    return next(iter(near), "") or next((one for one in keys if spelt.startswith(f"{one}_")), "")


def _keys_at(kind: Any, place: Place) -> list[str]:
    """Keys that there are at a place of such a document; none where any may be."""
    for part in place:
        kind = _inner(kind, part)
    kind = _bare(kind)
    if not dataclasses.is_dataclass(kind):
        return []
    return [one.name for one in dataclasses.fields(kind) if one.init]


def _inner(kind: Any, part: int | str) -> Any:
    """Kind of a value within a value of this kind."""
    kind = _bare(kind)
    if dataclasses.is_dataclass(kind):
        return get_type_hints(kind, include_extras=True).get(str(part))
    inner = get_args(kind)
    if get_origin(kind) in (dict, Mapping):
        return inner[1]
    return inner[0] if inner else None


def _bare(kind: Any) -> Any:
    """A kind without its rules, and without the None that it may be instead."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    return kind


def _is_odd_number(text: str, value: object) -> bool:
    """Whether a number was written as no person reads it: ``1_000``, ``1e3``, ``inf``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and PLAIN_DIGITS.fullmatch(text) is None


def _shown(value: object) -> str:
    """A value as errors tell it; of lists and mappings nothing is unfolded."""
    if isinstance(value, dict):
        return "keys with values" if value else "{}"
    if isinstance(value, list | tuple):
        return "a list" if value else "[]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # as it may be written, and not as Python says it
    text = repr(value[:MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
