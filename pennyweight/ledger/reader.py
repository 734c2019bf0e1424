"""Reads ledger folders, as `schema` has them and as they were before it.

Schema 1, of lines without the field `schema`: `time` is seconds since 1970 in requests, ISO 8601
text in pairs and outcomes, and is missing from the oldest; requests may lack `kind` and
`request_id`, and have no attempts; what runs for evidence cost stands in their pairs alone, as
`shadow_micro_usd`, and is to be added to what requests cost. `refused_micro_usd` is part of their
`micro_usd`. Lines of both may stand in one folder.

No line is fatal: what is torn by a crash, still being written, or no record at all is left out,
counted and named. So is what says a younger schema, whose fields may mean something else, lacks
what is added up, or has figures there that no record has. Kinds that are unknown are no fault,
they may be younger than the reader.

Whole files may be compressed with gzip (`*.jsonl.gz`): `opened` reads them, `Tail` has no use for
what does not grow. One that lies beside the file it was made of counts once.

`Tail` follows a ledger that grows and needs nothing. `opened` needs DuckDB, the extra `ledger`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.ledger.schema import time_text

if TYPE_CHECKING:
    import duckdb

FILES = "*.jsonl"
COMPRESSED = "*.jsonl.?*"
NAMES_SHOWN = 3
SCHEMA = 2
"""The youngest that is known here."""


class LedgerError(Exception):
    """A ledger cannot be read; the message says why, in a sentence.

    Attributes:
        hint: what to do about it, a sentence.
    """

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


class NoLedger(LedgerError):
    """There are no ledger files in the folder."""


class ExtraMissing(LedgerError):
    """DuckDB is not installed."""


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


class Tail:
    """Follows a folder. State: how far each file is read, and what in it was no record."""

    def __init__(self, folder: Path) -> None:
        """Leaves out what is there already."""
        self._folder = folder
        self._read = {path: path.stat().st_size for path in self._files()}
        self._lines = Counter[str]()
        self._refused: dict[str, str] = {}

    @property
    def unreadable(self) -> Unreadable:
        """Lines that were left out so far, and files that cannot be read now."""
        return Unreadable(dict(self._lines), dict(self._refused))

    def read(self) -> list[dict[str, Any]]:
        """The records that have come; a line still being written waits for the next time."""
        found = []
        self._refused.clear()
        for path in self._files():
            try:
                lines = self._new_lines(path)
            except OSError as error:
                self._refused[path.name] = error.strerror or str(error)
                continue
            for line in lines:
                record = record_of(line)
                if record is not None:
                    found.append(record)
                elif line.strip():
                    self._lines[path.name] += 1
        return found

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._folder.glob(FILES)) if path.is_file()]

    def _new_lines(self, path: Path) -> list[bytes]:
        start = self._read.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read[path] = start + len(whole) + len(newline)
        return whole.split(b"\n")


# --- with DuckDB ---------------------------------------------------------------------------------

COLUMNS = {
    "kind": "VARCHAR",
    "schema": "BIGINT",
    "time": "VARCHAR",
    "request_id": "VARCHAR",
    "handle": "VARCHAR",
    "tenant": "VARCHAR",
    "route": "VARCHAR",
    "tier": "VARCHAR",
    "cache": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "micro_usd": "BIGINT",
    "baseline_micro_usd": "BIGINT",
    "attempts": "STRUCT(cause VARCHAR, micro_usd BIGINT)[]",
    "answered": "VARCHAR",
    "shadow_micro_usd": "BIGINT",
    "resolved": "BOOLEAN",
    "rating": "DOUBLE",
    "process": "VARCHAR",
    "missing": "BIGINT",
}
"""What is added up; DuckDB skips the other fields of a line, and what a line lacks is NULL."""

NEEDED = {
    "request": (
        *("time", "request_id", "tenant", "route", "tier", "cache", "prompt_tokens"),
        *("output_tokens", "micro_usd", "baseline_micro_usd", "attempts"),
    ),
    "pair": ("request_id", "route", "answered", "shadow_micro_usd"),
    "outcome": ("request_id",),
    "gap": ("process", "missing"),
}
"""Fields of schema 2 that are added up, by kind: without one of them a line would count in part."""

NO_RECORD = "no records"
LACKING = " OR ".join(
    f"(kind = '{kind}' AND ({' OR '.join(f'{name} IS NULL' for name in names)}))"
    for kind, names in NEEDED.items()
)
FIGURE_MOST = 1 << 53
"""Tokens, micro-USD or requests of one line: more are a damaged line, and so are fewer than 0."""
FIGURES = (
    *("prompt_tokens", "output_tokens", "micro_usd", "baseline_micro_usd", "shadow_micro_usd"),
    "missing",
)
STRANGE = " OR ".join(f"{name} NOT BETWEEN 0 AND {FIGURE_MOST}" for name in FIGURES)
STRANGE_ATTEMPTS = f"""
    len([one FOR one IN attempts
        IF coalesce(one.micro_usd NOT BETWEEN 0 AND {FIGURE_MOST}, true)]) > 0
"""
EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""Seconds from 1970 to the first and the last of the years 1 to 9999."""
WRONG = f"""
    CASE WHEN kind IS NULL AND handle IS NULL THEN '{NO_RECORD}'
    WHEN schema > {SCHEMA} THEN 'of a younger schema'
    WHEN schema = {SCHEMA} AND ({LACKING}) THEN 'without fields that a record has'
    WHEN {STRANGE} OR {STRANGE_ATTEMPTS} THEN 'with figures that no record has' END
"""
"""What is wrong with a line; NULL for nothing."""

LINES = f"""
    CREATE VIEW lines AS SELECT * REPLACE (
        coalesce(kind, 'request') AS kind,
        coalesce(schema, 1) AS schema,
        coalesce(
            CASE WHEN TRY_CAST(time AS DOUBLE) BETWEEN {EARLIEST} AND {LATEST}
                THEN make_timestamp(CAST(TRY_CAST(time AS DOUBLE) * 1e6 AS BIGINT)) END,
            TRY_CAST(time AS TIMESTAMP)
        ) AS time
    ) FROM raw WHERE ({WRONG}) IS NULL
"""  # noqa: S608 -- made of constants alone


@dataclass(frozen=True)
class Ledger:
    """The files of a folder, open for questions.

    Attributes:
        base: has a view `lines`: `COLUMNS` of every record, with `kind`, `schema`, and `time` as a
            timestamp in UTC; NULL where a record has none.
        unreadable: what of the folder is not in it.
        files: that are in it.
    """

    base: "duckdb.DuckDBPyConnection"
    unreadable: Unreadable
    files: tuple[str, ...]

    def gaps(self) -> dict[str, int]:
        """How many requests are missing at least, by the process that was killed."""
        query = "SELECT process, sum(missing)::HUGEINT FROM lines WHERE kind = 'gap' GROUP BY ALL"
        return {process: missing or 0 for process, missing in self.base.execute(query).fetchall()}

    def records(self, route: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
        """Whole records of a route, as `record_of` gives them, in no order."""
        rows = self.base.execute(
            """
            SELECT json FROM read_ndjson_objects($files, ignore_errors = true)
            WHERE (json->>'kind') IN (SELECT unnest($kinds)) AND (json->>'route') = $route
            """,
            {"files": list(self.files), "kinds": list(kinds), "route": route},
        ).fetchall()
        return [record for (line,) in rows if (record := record_of(line)) is not None]


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """Opens a ledger for questions.

    Raises:
        ExtraMissing: DuckDB is not installed.
        NoLedger: the folder holds no ledger files.
        LedgerError: it holds some, and none can be read.
    """
    try:
        import duckdb  # noqa: PLC0415 -- the extra may be missing
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            "Reading the ledger needs DuckDB.",
            "Install the extra: python -m pip install 'pennyweight[ledger]'",
        ) from error
    found = sorted({*folder.glob(FILES), *folder.glob(COMPRESSED)})
    if not found:
        raise NoLedger(
            f"No ledger in {folder}: there are no {FILES} files.",
            "The router writes one there as soon as it has answered; name another with --folder.",
        )
    refused = {path.name: said for path in found if (said := _refused(path))}
    files = [str(path) for path in found if path.name not in refused]
    with duckdb.connect() as base:
        try:
            wrong = _wrong_lines(base, files)
        except duckdb.Error:  # one file is in the way of all of them
            wrong, whole, files = [], files, []
            for file in whole:
                try:
                    wrong += _wrong_lines(base, [file])
                    files.append(file)
                except duckdb.Error as error:
                    refused[Path(file).name] = str(error).partition("\n")[0]
        lines, why = Counter[str](), Counter[str]()
        for name, reason, count in wrong:
            lines[name] += count
            why[reason] += count
        del why[NO_RECORD]
        unreadable = Unreadable(dict(lines), refused, dict(why))
        if not files:
            raise LedgerError(f"Nothing in {folder} can be read.", " ".join(unreadable.notes()))
        _of(base, files).create_view("raw")
        base.execute(LINES)
        yield Ledger(base, unreadable, tuple(files))


def _of(base: "duckdb.DuckDBPyConnection", files: list[str]) -> "duckdb.DuckDBPyRelation":
    """The columns of each line; all are NULL where it is no JSON."""
    return base.read_json(
        files,  # type: ignore[arg-type]  # the stub knows one file alone
        columns=COLUMNS,
        format="newline_delimited",
        ignore_errors=True,
        filename=True,
    )


def _wrong_lines(base: "duckdb.DuckDBPyConnection", files: list[str]) -> list[tuple[str, str, int]]:
    """Name of a file, what is wrong with lines of it, and with how many.

    Raises:
        duckdb.Error: a file cannot be read at all.
    """
    if not files:
        return []
    wrong = _of(base, files).project(f"filename, {WRONG} AS wrong").filter("wrong IS NOT NULL")
    rows = wrong.aggregate("filename, wrong, count(*)").fetchall()
    return [(Path(file).name, reason, count) for file, reason, count in rows]


def _refused(path: Path) -> str:
    """Why a file is not read; empty where it is to be tried."""
    if not path.is_file():
        return "no file"
    if path.suffix == ".jsonl":
        return ""
    if path.suffix != ".gz":
        return "neither plain nor compressed with gzip"
    return f"{path.stem} is there too" if path.with_suffix("").is_file() else ""


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    shown = list(names[:NAMES_SHOWN]) + ([f"and {rest} more"] if rest > 0 else [])
    return ", ".join(shown)
