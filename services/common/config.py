"""Reads configuration once, checks all of it and says precisely what is wrong.

A configuration is a frozen dataclass, ``pydantic.dataclasses.dataclass`` for its checks. It comes
from the environment (``from_environment``) or from a YAML file (``load_document``). What is wrong
with it raises `ConfigError`, which names file, line, key, rule and value and stops the start.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid")
"""What every configuration dataclass uses, beside ``frozen=True``: unknown keys are mistakes."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""How things that operators name are called: routes, tiers, models, routers."""

TENANT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
TenantName = Annotated[str, Field(pattern=TENANT_PATTERN)]


class ConfigError(Exception):
    """Configuration that cannot be used.

    Attributes:
        source: file, or "environment".
        problems: one sentence for each wrong key: place, rule, value.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(f"{source}: " + "; ".join(problems))


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
    problems = [
        f"{prefix}{name.upper()}: no such setting" for name in sorted(values.keys() - fields)
    ]
    adapter = TypeAdapter(kind)
    try:
        result = adapter.validate_python({k: v for k, v in values.items() if k in fields})
    except ValidationError as error:
        problems += [
            f"{prefix}{'.'.join(str(part) for part in wrong['loc']).upper()}: "
            f"{wrong['msg']}, got {_shown(wrong['input'])}"
            if wrong["loc"]
            else f"{prefix}*: {wrong['msg']}"  # a rule over several settings
            for wrong in error.errors()
        ]
        raise ConfigError("environment", problems) from error
    except ConfigError as error:
        raise ConfigError("environment", problems + error.problems) from error
    if problems:
        raise ConfigError("environment", problems)
    return result


Place = tuple[int | str, ...]
"""Where a value stands in a document: the keys and positions that lead to it."""


@dataclasses.dataclass(frozen=True)
class Document(Generic[T]):
    """A YAML document that was read and checked.

    Attributes:
        content: what it holds.
        source: names it in errors.
    """

    content: T
    source: str
    _root: yaml.Node | None

    def line(self, place: Place) -> int:
        """Line of the deepest part of the place that the document has."""
        return _line_of(self._root, place)

    def refuse(self, broken: Iterable[tuple[Place, str]]) -> None:
        """Refuses the document for rules over several values; each with the place it is said at.

        Raises:
            ConfigError: any rule is broken.
        """
        problems = [
            f"line {self.line(place)}: {'.'.join(map(str, place))}: {rule}"
            for place, rule in broken
        ]
        if problems:
            raise ConfigError(self.source, problems)


def load_document(path: Path, kind: type[T]) -> Document[T]:
    """Reads a YAML file into a checked dataclass.

    Raises:
        ConfigError: the file is missing, is not YAML, or a value breaks its rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
    return parse_document(text, kind, source=str(path))


def parse_document(text: str, kind: type[T], *, source: str) -> Document[T]:
    """Parses YAML text into a checked dataclass; `source` names it in errors.

    Raises:
        ConfigError: it is not YAML, a key appears twice, or a value breaks its rule.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = list(_repeated_keys(root, set()))
        data = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(source, [f"{where}not valid YAML: {what}"]) from error
    except RecursionError as error:
        raise ConfigError(source, ["not valid YAML: nested too deeply"]) from error
    if twice:
        raise ConfigError(source, twice)
    try:
        content = TypeAdapter(kind).validate_python(data if data is not None else {})
    except ValidationError as error:
        problems = [
            f"line {_line_of(root, wrong['loc'])}: {'.'.join(str(part) for part in wrong['loc'])}: "
            f"{wrong['msg']}, got {_shown(wrong['input'])}"
            for wrong in error.errors()
        ]
        raise ConfigError(source, problems) from error
    return Document(content, source, root)


def die(error: ConfigError) -> None:
    """Prints what is wrong with the configuration and ends the process with status 2."""
    lines = "\n".join(f"  {problem}" for problem in error.problems)
    sys.stderr.write(f"pennyweight: bad configuration in {error.source}\n{lines}\n")
    raise SystemExit(2)


def _repeated_keys(node: yaml.Node | None, known: set[int]) -> Iterator[str]:
    if node is None or id(node) in known:  # an alias leads back to a node
        return
    known.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield f"line {key.start_mark.line + 1}: {key.value}: appears twice"
                seen.add(key.value)
            yield from _repeated_keys(value, known)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value, known)


def _line_of(root: yaml.Node | None, place: Place) -> int:
    """See `Document.line`."""
    node, line = root, 1
    if node is not None:
        line = node.start_mark.line + 1
    for part in place:
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, following = key.start_mark.line + 1, value
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            following = node.value[part]
            line = following.start_mark.line + 1
        if following is None:
            continue  # pydantic adds parts of its own, such as the arm of a union
        node = following
    return line


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004
