"""What trials take replicas to be, and when two files differ: as asked for, told and shown."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command.ending import USAGE, end
from pennyweight.command.scaler.link import MAX_TRACE_BYTES
from pennyweight.command.show import add_columns, console, line, moment, plain, say
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import duration_of, seconds_of, time_of

CONSTANTS, STARTS = ("a", "b", "c", "p"), ("start", "spread")
FORM = "a=0.01,b=0.0008,c=0.0000001,p=0.00001,start=60,spread=0.2"

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write a page with plots too, one file that loads nothing.",
        metavar="FILE",
        show_default="none",
    ),
]


@dataclass(frozen=True)
class Assumed:
    """What a pool's replicas were taken to be; constants in seconds, as in `work.capacity`."""

    a: float
    b: float
    c: float
    p: float
    start_seconds: float
    start_spread: float
    source: str

    @property
    def as_option(self) -> str:
        """As `--capacity` takes it."""
        figures = (self.a, self.b, self.c, self.p, self.start_seconds, self.start_spread)
        named = zip((*CONSTANTS, *STARTS), figures, strict=True)
        return ",".join(f"{name}={_plain_digits(figure)}" for name, figure in named)

    @property
    def in_words(self) -> str:
        """The same with where it comes from."""
        return f"{self.as_option} ({self.source})"


@dataclass(frozen=True)
class Difference:
    """A time in which two files would have given a pool unlike sizes, and why each did."""

    since: dt.datetime
    until: dt.datetime
    live_size: int
    planned_size: int
    live_why: str
    planned_why: str


def assumed_of(message: pb.AssumedReplica) -> Assumed:
    """A replica as it is shown."""
    return Assumed(
        message.a,
        message.b,
        message.c,
        message.p,
        seconds_of(message.start),
        message.start_spread,
        message.source,
    )


def difference_of(message: pb.Difference) -> Difference:
    """A difference as it is shown."""
    return Difference(
        time_of(message.since),
        time_of(message.until),
        message.live_size,
        message.planned_size,
        message.live_why,
        message.planned_why,
    )


def differences_table(found: Mapping[str, Sequence[Difference]]) -> Table:
    """Differences, by pool, with both sizes and both reasons."""
    table = Table()
    add_columns(table, ("pool", "since", "for", "in force", "planned"))
    for pool, some in found.items():
        for one in some:
            minutes = (one.until - one.since).total_seconds() / 60.0
            table.add_row(
                line(pool),
                moment(one.since),
                f"{minutes:,.1f} min",
                line(one.live_why) or str(one.live_size),
                line(one.planned_why) or str(one.planned_size),
            )
    return table


def replica_of(given: str) -> pb.AssumedReplica:
    """What `--capacity` says of one pool; ends the command where it says something else."""
    said = _pairs(given, (*CONSTANTS, *STARTS), "--capacity")
    figures = {}
    for name, value in said.items():
        try:
            figures[name] = float(value)
        except ValueError:
            end(f"--capacity: {name} is a number, not {value!r}.", f"As in {FORM}.", code=USAGE)
    a, b, c, p = (figures.get(name, 0.0) for name in CONSTANTS)
    message = pb.AssumedReplica(a=a, b=b, c=c, p=p)
    if "start" in figures:
        message.start.CopyFrom(duration_of(figures["start"]))
    if "spread" in figures:
        message.start_spread = figures["spread"]
    return message


def replicas_of(given: Sequence[str]) -> dict[str, pb.AssumedReplica]:
    """What `--capacity` says, by pool; ends the command where it names none."""
    found = {}
    for one in given:
        pool, apart, constants = one.partition(":")
        if not apart or not pool:
            end(f"--capacity names no pool: {one!r}.", f"Write POOL:{FORM}.", code=USAGE)
        found[pool] = replica_of(constants)
    return found


def rows_of(given: str) -> dict[str, str]:
    """Which rows `--replica` chooses, by column."""
    columns = ("engine", "model", "gpu", "precision", "gemm", "tensor_parallel")
    return _pairs(given, columns, "--replica")


def rows_from(file: Path, beside: int) -> bytes:
    """Measured rows; ends the command where they cannot be sent with so many bytes of a trace."""
    try:
        data = file.read_bytes()
    except OSError as error:
        end(f"{file} cannot be read: {error.strerror}.", code=USAGE)
    if len(data) + beside > MAX_TRACE_BYTES:
        hint = f"Most are {MAX_TRACE_BYTES:,}, the trace included: send the rows that are meant."
        end(f"{file} has {len(data):,} bytes.", hint, code=USAGE)
    return data


def write_page(file: Path, page: str) -> None:
    """Writes a page, or remarks that there is none; ends the command where it cannot be written."""
    if not page:
        say(console(stderr=True), plain(f"{file} is not written: nothing was tried."), "yellow")
        return
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        end(f"{file} cannot be written: {error.strerror}.", code=USAGE)


def _plain_digits(figure: float) -> str:
    """Six digits that count, without an exponent, as scaling files want them."""
    return f"{Decimal(f'{figure:.6g}'):f}"


def _pairs(given: str, names: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for one in given.split(","):
        name, apart, value = one.strip().partition("=")
        if not apart or name not in names or not value:
            end(f"{option}: {one!r} is not NAME=VALUE.", f"Names: {', '.join(names)}.", code=USAGE)
        found[name] = value
    return found
