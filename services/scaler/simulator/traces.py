"""Traces that a policy is tried on: single requests, or rates by window. Read within bounds.

Field names of requests are those of aiperf: `timestamp` (milliseconds), `input_length`,
`output_length`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.common.config import ConfigError, Problem
from services.common.plain_files import read_plain

Floats = NDArray[np.float64]

MAX_BYTES = 512 << 20
MAX_REQUESTS = 5_000_000
MAX_WINDOWS = 1_000_000
MAX_TOKENS = 10_000_000
"""Of one prompt or answer."""
MAX_PER_SECOND = 1e6
MAX_SECONDS = 1e12
"""Of a time, from whatever its trace counts: far beyond any clock, and exact in milliseconds."""
MIN_WINDOW_SECONDS = 1.0


@dataclass(frozen=True)
class Requests:
    """Single requests, in the order in which they came.

    Attributes:
        timestamp: milliseconds since the first.
        input_length, output_length: tokens.
    """

    timestamp: Floats
    input_length: Floats
    output_length: Floats

    @property
    def seconds(self) -> float:
        """From the first to the last."""
        return float(self.timestamp[-1]) / 1000.0


@dataclass(frozen=True)
class Rates:
    """Requests a second, window by window.

    Attributes:
        window_seconds: length of each.
        per_second: mean rate in each.
    """

    window_seconds: float
    per_second: Floats

    @property
    def seconds(self) -> float:
        """Of all windows."""
        return self.window_seconds * len(self.per_second)


def read_trace(path: Path) -> Requests | Rates:
    """Reads a trace of any known format; a file's first line says which it is.

    Raises:
        ConfigError: it cannot be read, is too large, or a line is not of the format.
    """
    try:
        text = read_plain(path, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"the trace cannot be read: {exc}"]) from exc
    return parse_trace(text, str(path))


def parse_trace(text: str, source: str) -> Requests | Rates:
    """The same of a text; `source` names it in errors.

    Formats: Mooncake's JSONL, Azure's `TIMESTAMP,ContextTokens,GeneratedTokens` and ServeGen's
    `t_start_s,req_per_s`.
    """
    first = text.split("\n", 1)[0].strip()
    if first.startswith("{"):
        return _requests(_jsonl(text, source), source)
    names = tuple(name.strip() for name in first.split(","))
    if names == ("TIMESTAMP", "ContextTokens", "GeneratedTokens"):
        return _requests(_azure(text, source), source)
    if names == ("t_start_s", "req_per_s"):
        return _rates(text, source)
    rule = (
        "must begin with a JSON object (timestamp, input_length, output_length), with"
        " TIMESTAMP,ContextTokens,GeneratedTokens or with t_start_s,req_per_s"
    )
    raise ConfigError(source, [Problem(rule, line=1, value=first[:80])])


Line = tuple[int, float, float, float]
"""Number of a line; milliseconds, prompt and output tokens."""


def _jsonl(text: str, source: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            yield (
                number,
                float(one["timestamp"]),
                float(one["input_length"]),
                float(one["output_length"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            rule = "must be an object with the numbers timestamp, input_length and output_length"
            raise ConfigError(source, [Problem(rule, line=number, value=line[:80])]) from exc


def _rows(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV after its first, with their numbers."""
    rows = csv.reader(io.StringIO(text))
    try:
        for number, row in enumerate(rows, start=1):
            if number > 1 and row:
                yield number, row
    except csv.Error as exc:
        rule = f"must be a line of plain CSV: {exc}"
        raise ConfigError(source, [Problem(rule, line=rows.line_num)]) from exc


def _azure(text: str, source: str) -> Iterator[Line]:
    for number, row in _rows(text, source):
        try:
            # Seven digits of a second there; Python's clocks know six.
            at = datetime.fromisoformat(row[0][:26]).replace(tzinfo=UTC).timestamp()
            yield number, at * 1000.0, float(row[1]), float(row[2])
        except (IndexError, ValueError, OverflowError) as exc:
            rule = "must be a time, prompt tokens and output tokens"
            raise ConfigError(
                source, [Problem(rule, line=number, value=",".join(row)[:80])]
            ) from exc


def _requests(lines: Iterator[Line], source: str) -> Requests:
    found: list[tuple[float, float, float]] = []
    for number, at, prompt, output in lines:
        if len(found) >= MAX_REQUESTS:
            raise ConfigError(source, [f"has more than {MAX_REQUESTS} requests"])
        known = abs(at) <= MAX_SECONDS * 1000.0
        if not (known and 0 <= prompt <= MAX_TOKENS and 0 <= output <= MAX_TOKENS):
            rule = f"tokens must be from 0 to {MAX_TOKENS}, times at most {MAX_SECONDS:g} s from 0"
            value = f"{at}, {prompt}, {output}"
            raise ConfigError(source, [Problem(rule, line=number, value=value)])
        # No answer is empty for the engine: its end is a token too.
        found.append((at, prompt, max(1.0, output)))
    if len(found) < 2:  # noqa: PLR2004
        raise ConfigError(source, ["has fewer than two requests"])
    table = np.array(found)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Requests(table[:, 0] - table[0, 0], table[:, 1], table[:, 2])


def _rates(text: str, source: str) -> Rates:
    begins: list[float] = []
    rates: list[float] = []
    for number, row in _rows(text, source):
        try:
            begin, rate = float(row[0]), float(row[1])
        except (IndexError, ValueError) as exc:
            rule = "must be the start of a window in seconds and a rate a second"
            raise ConfigError(
                source, [Problem(rule, line=number, value=",".join(row)[:80])]
            ) from exc
        if not 0.0 <= rate <= MAX_PER_SECOND:
            rule = f"the rate must be from 0 to {MAX_PER_SECOND:.0f}"
            raise ConfigError(source, [Problem(rule, line=number, value=row[1][:80])])
        if not abs(begin) <= MAX_SECONDS:
            rule = f"a window must begin at most {MAX_SECONDS:g} s from 0"
            raise ConfigError(source, [Problem(rule, line=number, value=row[0][:80])])
        if len(rates) >= MAX_WINDOWS:
            raise ConfigError(source, [f"has more than {MAX_WINDOWS} windows"])
        if len(begins) == 1 and begin - begins[0] < MIN_WINDOW_SECONDS:
            rule = f"windows must follow each other, of {MIN_WINDOW_SECONDS:g} s or more"
            raise ConfigError(source, [Problem(rule, line=number, value=row[0][:80])])
        if len(begins) > 1 and abs((begin - begins[-1]) - (begins[1] - begins[0])) > 1e-6:  # noqa: PLR2004
            rule = "windows must follow each other, all of one length"
            raise ConfigError(source, [Problem(rule, line=number, value=row[0][:80])])
        begins.append(begin)
        rates.append(rate)
    if len(rates) < 2:  # noqa: PLR2004
        raise ConfigError(source, ["has fewer than two windows"])
    return Rates(begins[1] - begins[0], np.array(rates))
