"""Lines of ledgers, as `schema` has them and as they were before it; and which are no records.

Schema 1, of lines without the field `schema`: `time` is seconds since 1970 in requests, ISO 8601
text in pairs and outcomes, and is missing from the oldest; requests may lack `kind` and
`request_id`, and have no attempts; what runs for evidence cost stands in their pairs alone, as
`shadow_micro_usd`, and is to be added to what requests cost. `refused_micro_usd` is part of their
`micro_usd`. Lines of both may stand in one folder.

No line is fatal: what is torn by a crash, still being written, or no record at all is left out,
counted and named. So is what says a younger schema, whose fields may mean something else, lacks
what is added up, or has figures there that no record has. Kinds that are unknown are no fault,
they may be younger than the reader.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pennyweight.ledger.schema import time_text

FILES = "*.jsonl"
NAMES_SHOWN = 3
SCHEMA = 2
"""The youngest that is known here."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What of a folder is no record.

    Attributes:
        lines: how many, by name of their file.
        files: why, by name of a file of which nothing could be read.
        why: how many of the lines are records and yet left out, by what is wrong with them.
    """

    lines: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, int] = field(default_factory=dict)

    def notes(self) -> tuple[str, ...]:
        """It in at most two sentences, with names; empty where everything was read."""
        notes: list[str] = []
        if self.lines:
            names = _some([f"{name}: {count}" for name, count in sorted(self.lines.items())])
            total = sum(self.lines.values())
            why = [f"{count} {reason}" for reason, count in sorted(self.why.items())]
            of_them = f"; of them {', '.join(why)}" if why else ""
            notes.append(
                f"Lines that could not be read and are left out: {total} ({names}){of_them}."
            )
        if self.files:
            names = _some([f"{name}: {why}" for name, why in sorted(self.files.items())])
            count = len(self.files)
            notes.append(f"Files that could not be read and are left out: {count} ({names}).")
        return tuple(notes)

    def counts(self) -> dict[str, int]:
        """How many lines and files, by a reason that names the files."""
        return {
            f"{what} that cannot be read ({_some(sorted(names))})": count
            for what, names, count in (
                ("lines", self.lines, sum(self.lines.values())),
                ("files", self.files, len(self.files)),
            )
            if names
        }


def record_of(line: str | bytes) -> dict[str, Any] | None:
    """The record of a line, in the spelling of schema 2: `kind` and `time`; None if it is none.

    A record of schema 1 keeps saying so, by the lack of `schema`.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        return None
    if "kind" not in record:
        if "handle" not in record:
            return None
        record["kind"] = "request"
    record["time"] = _time_of(record.get("time"))
    return record


def _time_of(time: object) -> str | None:
    """A time of any schema, as schema 2 spells it; None where there is none."""
    if isinstance(time, str):
        return time.replace("+00:00", "Z")
    try:
        return time_text(time) if isinstance(time, int | float) else None
    except (ValueError, OverflowError, OSError):  # no year of ours
        return None


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    shown = list(names[:NAMES_SHOWN]) + ([f"and {rest} more"] if rest > 0 else [])
    return ", ".join(shown)
