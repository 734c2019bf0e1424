"""Writes the tables of settings in docs/operating.md from the services' configuration classes.

`python -m tools.settings` rewrites what stands between the marks; a test holds page and classes
together.
"""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from services.cache.config import CacheSettings
from services.common.server_settings import ServerSettings
from services.router.config import RouterSettings
from services.scaler.config import ScalerSettings

PAGE = Path(__file__).parent.parent / "docs" / "operating.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
SERVICES: dict[str, Any] = {
    "ROUTER": RouterSettings,
    "CACHE": CacheSettings,
    "SCALER": ScalerSettings,
}


def tables() -> str:
    """All settings as Markdown."""
    common = _fields(ServerSettings)
    parts = [
        "### Every service\n\nWith `ROUTER`, `CACHE` or `SCALER` for `*`.",
        _table("*", common, {"listen", "metrics_listen"}),
    ]
    for name, kind in SERVICES.items():
        own = {
            field: row
            for field, row in _fields(kind).items()
            if field not in common or row.default != common[field].default
        }
        parts += [f"### {name.capitalize()}", _table(name, own)]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its tables as they should be."""
    return between(BEGIN, END, text, tables())


def between(begin: str, end: str, text: str, new: str) -> str:
    """The text with `new` between the two marks."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


@dataclasses.dataclass(frozen=True)
class _Row:
    default: str
    meaning: str


def _fields(kind: Any) -> dict[str, _Row]:
    meanings: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        meanings |= attributes(inspect.getdoc(one) or "" if "__doc__" in vars(one) else "")
    return {
        field.name: _Row(_default(field), meanings[field.name])
        for field in dataclasses.fields(kind)
    }


def attributes(doc: str) -> dict[str, str]:
    """What the "Attributes:" of a docstring say of each."""
    listed = doc.partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for line in inspect.cleandoc("\n" + listed).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif line.strip():
            found[name] += " " + line.strip()
    return found


def _default(field: Any) -> str:
    value = field.default
    if value in (None, "", ()):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(prefix: str, rows: dict[str, _Row], by_service: set[str] | None = None) -> str:
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for field, row in rows.items():
        default = "by service" if by_service and field in by_service else row.default
        meaning = (row.meaning[0].upper() + row.meaning[1:]).replace("``", "`")
        lines.append(f"| `PENNYWEIGHT_{prefix}_{field.upper()}` | {default} | {meaning} |")
    return "\n".join(lines)


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
