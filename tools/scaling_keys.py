"""Writes the tables of keys in docs/scaling.md from the classes of the scaling policy.

`python -m tools.scaling_keys` rewrites what stands between the marks; a test holds page and classes
together.
"""

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from services.scaler.policy.sizing.settings import Budget, Measure, Money, Scale
from services.scaler.pools.pool import Pool, Restart
from tools.settings import attributes, between

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"
TITLES: Mapping[str, tuple[type, str]] = {
    "pools.<name>": (Pool, "Keys of a pool"),
    "scale": (Scale, "Keys of a pool's `scale`"),
    "budgets.<name>": (Budget, "Keys of a budget"),
    "money": (Money, "Keys of `money`"),
    "restart": (Restart, "Keys of `restart`"),
}
PLAIN: Mapping[Any, str] = {
    bool: "true, false",
    float: "number",
    int: "whole number",
    Path: "path",
    str: "text",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key, in full.

    Attributes:
        name: with the keys that it stands below.
        values: that it takes.
        default: as it is written; empty: it must be given.
        meaning: in a sentence.
    """

    name: str
    values: str
    default: str
    meaning: str


def tables() -> str:
    """All keys and all measures as Markdown."""
    parts = []
    for prefix, (kind, title) in TITLES.items():
        rows = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
        rows += [
            f"| `{key.name}` | {key.values} | {key.default} | {key.meaning} |"
            for key in keys(kind, prefix)
        ]
        parts += [f"### {title}", "\n".join(rows)]
    rows = ["| measure | meaning |", "| --- | --- |"]
    rows += [f"| `{name}` | {meaning} |" for name, meaning in measures().items()]
    return "\n\n".join([*parts, "### Measures", "\n".join(rows)])


def page(text: str) -> str:
    """The page with its tables as they should be."""
    return between(BEGIN, END, text, tables())


def keys(kind: type, prefix: str) -> Iterator[Key]:
    """The keys of a class, those below each of them right after it.

    Those of a class with a table of its own are left to that.
    """
    apart = {one for one, _ in TITLES.values()}
    meanings = _meanings(inspect.getdoc(kind) or "")
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        hint = hints[field.name]
        meaning = meanings[field.name].replace("``", "`").replace("None:", "none:")
        name = f"{prefix}.{field.name}"
        yield Key(name, _values(hint), _default(field), meaning[0].upper() + meaning[1:])
        for below, what in _below(hint):
            if what not in apart:
                yield from keys(what, name + below)


def measures() -> dict[str, str]:
    """What is measured, by name, as the lines below its members say."""
    (kind,) = ast.parse(inspect.getsource(Measure)).body
    if not isinstance(kind, ast.ClassDef):
        raise TypeError(f"{Measure} is no class")
    found: dict[str, str] = {}
    name = ""
    for line in kind.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = Measure[line.targets[0].id].value
        elif name and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            found[name] = " ".join(str(line.value.value).split())
    return found


def _meanings(doc: str) -> dict[str, str]:
    """What a docstring says of each attribute, also of several in one line."""
    joined = {}
    for line in doc.splitlines():
        names, colon, rest = line.strip().partition(": ")
        if colon and ", " in names and all(one.isidentifier() for one in names.split(", ")):
            joined[names.split(", ")[0]] = names.split(", ")
            doc = doc.replace(line.strip(), f"{names.split(', ')[0]}: {rest}")
    found = attributes(doc)
    for first, several in joined.items():
        found |= dict.fromkeys(several, found[first])
    return found


def _arguments(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without `Annotated` and None, and what it was annotated with."""
    said: tuple[Any, ...] = ()
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            hint, *more = typing.get_args(hint)
            said += tuple(more)
        elif typing.get_origin(hint) in (types.UnionType, typing.Union):
            (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
        else:
            return hint, said


def _below(hint: Any) -> Iterator[tuple[str, type]]:
    """The class that stands below a key, and what comes between them."""
    hint, _ = _arguments(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield "", hint
    elif origin is tuple:
        for _, what in _below(inner[0]):
            yield "[]", what
    elif origin is not None and issubclass(origin, Mapping):
        of, _ = _arguments(inner[0])
        for _, what in _below(inner[1]):
            yield ".<measure>" if of is Measure else ".<name>", what


def _values(hint: Any) -> str:
    hint, said = _arguments(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "keys below"
    if origin is tuple:
        return "list" if any(_below(hint)) else f"list; each: {_values(inner[0])}"
    if origin is not None:
        return "by measure" if _arguments(inner[0])[0] is Measure else "by name"
    if issubclass(hint, Enum):
        return ", ".join(f"`{one.value}`" for one in hint)
    return f"{PLAIN[hint]}{_bounds(said)}"


def _bounds(said: tuple[Any, ...]) -> str:
    least = most = ""
    flat = [one for info in said for one in getattr(info, "metadata", [info])]
    for one in flat:
        if isinstance(one, Ge):
            least = f"from {one.ge:g}"
        elif isinstance(one, Gt):
            least = f"more than {one.gt:g}"
        elif isinstance(one, Le):
            most = f"to {one.le:,.10g}"
        elif isinstance(one, Lt):
            most = f"to less than {one.lt:,.10g}"
    both = " ".join(filter(None, (least, most)))
    return f", {both}" if both else ""


def _default(field: "dataclasses.Field[Any]") -> str:
    value: Any = field.default
    if isinstance(value, FieldInfo):
        value = value.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    if value is None or value in ((), {}):
        return "none"
    if dataclasses.is_dataclass(value):
        return "as below"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    if value == "":
        return "empty"
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
