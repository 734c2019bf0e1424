"""Writes the tables of fields in docs/ledger.md from the classes of the ledger's schema.

`python -m tools.ledger_fields` rewrites what stands between the marks; a test holds page and
classes together.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pennyweight.ledger import schema
from tools.settings import attributes, between

PAGE = Path(__file__).parent.parent / "docs" / "ledger.md"
BEGIN, END = "<!-- fields: begin -->", "<!-- fields: end -->"

TITLES: Mapping[type, str] = {
    schema.RequestRecord: "Request",
    schema.AttemptRecord: "Attempt",
    schema.PairRecord: "Pair",
    schema.TierRecord: "Tier of a pair",
    schema.CertaintyRecord: "Certainty",
    schema.TextRecord: "Text of a pair",
    schema.MessageRecord: "Message",
    schema.OutcomeRecord: "Outcome",
    schema.GapRecord: "Gap",
}
PLAIN: Mapping[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Mapping[str, str]: "object of texts",
    tuple[tuple[int, float], ...]: "list of [integer, number]",
}
UNITS: Mapping[str, str] = {
    "time": "RFC 3339, UTC",
    "last_seen": "RFC 3339, UTC",
    "micro_usd": "micro-USD",
    "ms": "ms",
    "tokens": "tokens",
    "propensity": "(0, 1]",
    "quality": "[0, 1]",
    "qualities": "[0, 1]",
    "rating": "[-1, 1]",
    "mean": "log-probability",
    "minimum": "log-probability",
}
"""By a field's name, or the end of it."""


def tables() -> str:
    """All kinds and their parts as Markdown."""
    parts = []
    for kind, title in TITLES.items():
        doc = inspect.getdoc(kind) or ""
        about = " ".join(doc.partition("Attributes:")[0].split())
        parts += [f"### {title}", about, _fields(kind)]
        if kind is schema.AttemptRecord:
            parts += [_values("cause", schema.CAUSES), _values("verdict", schema.VERDICTS)]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its tables as they should be."""
    return between(BEGIN, END, text, tables())


def _fields(kind: Any) -> str:
    meanings = attributes(inspect.getdoc(kind) or "")
    hints = typing.get_type_hints(kind)
    lines = ["| field | type | unit | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        meaning = meanings[field.name].replace("``", "`")
        lines.append(
            f"| `{field.name}` | {_type(hints[field.name])} | {_unit(kind, field.name)} "
            f"| {meaning[0].upper()}{meaning[1:]} |"
        )
    return "\n".join(lines)


def _values(title: str, meanings: Mapping[str, str]) -> str:
    rows = [
        f"| `{value}` | {meaning[0].upper()}{meaning[1:]}. |" for value, meaning in meanings.items()
    ]
    return "\n".join([f"| {title} | meaning |", "| --- | --- |", *rows])


def _type(hint: Any) -> str:
    if hint in PLAIN:
        return PLAIN[hint]
    if hint in TITLES:
        return f"[{TITLES[hint].lower()}](#{TITLES[hint].lower().replace(' ', '-')})"
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "text"
    if origin is types.UnionType:
        return f"{_type(inside[0])} or null"
    return f"list of {_type(inside[0])}"


def _unit(kind: Any, name: str) -> str:
    if name == "first_k":
        return "log-probability" if kind is schema.CertaintyRecord else "tokens"
    return next((unit for end, unit in UNITS.items() if f"_{name}".endswith(f"_{end}")), "")


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
