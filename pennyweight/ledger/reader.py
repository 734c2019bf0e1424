"""Opens ledger folders for questions, with DuckDB, the extra `ledger`.

Whole files may be compressed with gzip (`*.jsonl.gz`). One that lies beside the file it was made of
counts once. Leaves to `lines` what a record is, to `tail` a ledger that grows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.ledger.lines import FILES, SCHEMA, Unreadable, record_of

if TYPE_CHECKING:
    import duckdb

COMPRESSED = "*.jsonl.?*"


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
