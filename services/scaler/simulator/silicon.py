"""How fast a replica is: four constants, fitted on measured rows.

A step of the engine with n requests of ``prompt`` and ``output`` tokens takes
``a + b*n + c*n*(prompt + output/2) + p*n*prompt/output`` seconds: what a step costs anyway, what a
request, a token of its context and its share of prompts to be read add to it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.common.config import ConfigError, Problem
from services.common.plain_files import read_plain
from services.scaler.policy.plans import COLUMNS
from services.scaler.policy.sizing.settings import Capacity

Floats = NDArray[np.float64]

MAX_BYTES = 16 << 20
MAX_ROWS = 100_000
MAX_STEP = 60.0
LEAST_STEP = 1e-6
"""Seconds of a step; a fit that says less says nothing of it."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        labels: engine, model, gpu, precision, gemm and tensor_parallel, as the file has them.
        prompt: tokens of each request's prompt.
        output: tokens of each answer.
        batch: requests at once.
        ttft: seconds to the first token, the wait of a common start included.
        tpot: seconds for each further token.
    """

    labels: tuple[str, ...]
    prompt: int
    output: int
    batch: int
    ttft: float
    tpot: float


@dataclass(frozen=True)
class Fit:
    """Constants, and how far they are off.

    Attributes:
        capacity: the constants.
        rows: how many they were fitted on.
        error: mean of the relative errors of the time per token on these rows.
        held_out: the same on rows that were left out, each third once.
    """

    capacity: Capacity
    rows: int
    error: float
    held_out: float


@dataclass(frozen=True)
class Serving:
    """What a replica serves, and how fast.

    Attributes:
        capacity: its constants.
        prompt, output: tokens of the mean request.
        places: requests that it runs at once.
    """

    capacity: Capacity
    prompt: float
    output: float
    places: int = 128

    @property
    def slope(self) -> float:
        """Seconds that each running request adds to a step."""
        one = self.capacity
        context = self.prompt + self.output / 2.0
        return one.b + one.c * context + one.p * self.prompt / self.output

    @property
    def throughput(self) -> float:
        """Requests a second with every place taken."""
        return self.rate(self.places)

    def rate(self, running: float) -> float:
        """Requests a second that are finished with so many running."""
        return running / (self.output * (self.capacity.a + self.slope * running))

    def work(self, prompt: Floats, output: Floats) -> Floats:
        """Requests of the mean size that are as much work as each of these, on a full replica."""
        one = self.capacity
        seconds = one.p * prompt + output * (
            one.a / self.places + one.b + one.c * (prompt + output / 2.0)
        )
        return np.asarray(seconds * self.throughput)


def read_rows(path: Path) -> tuple[Row, ...]:
    """Reads measured rows.

    Raises:
        ConfigError: it cannot be read, or a line says something else.
    """
    try:
        text = read_plain(path, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"measured rows cannot be read: {exc}"]) from exc
    return parse_rows(text, str(path))


def parse_rows(text: str, source: str) -> tuple[Row, ...]:
    """The same of a text; `source` names it in errors."""
    rows: list[Row] = []
    for number, line in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        if len(rows) >= MAX_ROWS:
            raise ConfigError(source, [f"has more than {MAX_ROWS} rows"])
        try:
            row = Row(
                labels=tuple(str(line[name] or "") for name in COLUMNS),
                prompt=int(line["input_tokens"]),
                output=int(line["output_tokens"]),
                batch=int(line["batch"]),
                ttft=float(line["ttft_ms"]) / 1000.0,
                tpot=float(line["tpot_ms"]) / 1000.0,
            )
        except (KeyError, TypeError, ValueError) as exc:
            rule = "must have the columns of measured rows, with numbers"
            raise ConfigError(source, [Problem(rule, line=number, value=str(exc))]) from exc
        if row.prompt > 0 and row.output > 0 and row.batch > 0 and 0.0 < row.tpot < MAX_STEP:
            rows.append(row)
    return tuple(rows)


def chosen(rows: Sequence[Row], **labels: str) -> tuple[Row, ...]:
    """Those with these labels; a label that is not named may be anything."""
    at = {COLUMNS.index(name): value for name, value in labels.items()}
    return tuple(row for row in rows if all(row.labels[i] == v for i, v in at.items()))


def fit(rows: Sequence[Row]) -> Fit:
    """Fits the constants: non-negative least squares on relative errors of the time per token.

    The rate of prompts shows in the share of prompts in a step; times to the first token do not
    show it, since they hold the wait of a common start.

    Raises:
        ValueError: there are fewer than eight rows.
    """
    if len(rows) < 8:  # noqa: PLR2004 - two for each constant
        raise ValueError(f"{len(rows)} measured rows are too few: at least 8 are needed")
    terms, measured = _terms(rows)
    constants = _solved(terms, measured)
    third = np.arange(len(rows)) % 3
    missed = []
    for left_out in range(3):
        known = _solved(terms[third != left_out], measured[third != left_out])
        missed.append(_errors(terms[third == left_out], measured[third == left_out], known))
    return Fit(
        capacity=Capacity(
            a=max(LEAST_STEP, float(constants[0])),
            b=float(constants[1]),
            c=float(constants[2]),
            p=float(constants[3]),
        ),
        rows=len(rows),
        error=float(_errors(terms, measured, constants).mean()),
        held_out=float(np.concatenate(missed).mean()),
    )


def scaled(capacity: Capacity, speed: float) -> Capacity:
    """The constants of a replica that is so many times as fast."""
    return Capacity(
        a=capacity.a / speed, b=capacity.b / speed, c=capacity.c / speed, p=capacity.p / speed
    )


def _terms(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    batch = np.array([row.batch for row in rows], float)
    prompt = np.array([row.prompt for row in rows], float)
    output = np.array([row.output for row in rows], float)
    terms = np.stack(
        [np.ones(len(rows)), batch, batch * (prompt + output / 2.0), batch * prompt / output],
        axis=1,
    )
    return terms, np.array([row.tpot for row in rows])


def _solved(terms: Floats, measured: Floats) -> Floats:
    from scipy.optimize import nnls  # noqa: PLC0415 - what decides online does without scipy

    relative = terms / measured[:, None]
    size = np.linalg.norm(relative, axis=0)
    found, _ = nnls(relative / size, np.ones(len(measured)))
    return np.asarray(found / size)


def _errors(terms: Floats, measured: Floats, constants: Floats) -> Floats:
    return np.asarray(np.abs(terms @ constants / measured - 1.0))
