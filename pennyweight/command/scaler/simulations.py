"""``scaler simulate``: what a scaling file would have done with a trace, beside rules of others."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command.ending import run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.scaler.assumptions import (
    FORM,
    Html,
    assumed_of,
    replica_of,
    rows_from,
    rows_of,
    write_page,
)
from pennyweight.command.scaler.courses import FIGURES, Course, course_of, figures_of
from pennyweight.command.scaler.figures import span
from pennyweight.command.scaler.link import ScalingFile, reach, text_of, trace_of
from pennyweight.command.scaler.trials import require_good, tried
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    plain,
    print_json,
    print_table,
    say,
)
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import seconds_of

ALONE = "alone, without budgets and ceilings of money; `plan` tries them and all pools together"


class Generator(StrEnum):
    """How rates become arrivals."""

    POISSON = "poisson"
    STEPS = "steps"


@dataclass(frozen=True)
class Baseline:
    """What a rule of others would have done with a trace, with knobs that nobody has tuned."""

    name: str
    title: str
    course: Course
    knobs: dict[str, float]


def simulate(
    file: ScalingFile,
    *,
    trace: Annotated[
        Path,
        typer.Option(
            help="Requests or rates: Azure's CSV, Mooncake's JSON lines, or t_start_s,req_per_s.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    pool: Annotated[
        str,
        typer.Option(help="Pool that serves it.", show_default="the only one with a `scale`"),
    ] = "",
    times: Annotated[
        float, typer.Option(help="Multiply the arrivals by this.", min=0.0001, max=10_000.0)
    ] = 1.0,
    generator: Annotated[
        Generator,
        typer.Option(help="How rates become arrivals; `steps` is harder: its jumps come unseen."),
    ] = Generator.POISSON,
    capacity: Annotated[
        str,
        typer.Option(
            "--capacity",
            help="Take its replicas to be this.",
            metavar=FORM,
            show_default="as measured",
        ),
    ] = "",
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Fit its replicas by measured rows of engines, CSV.",
            metavar="FILE",
            show_default="none",
        ),
    ] = None,
    replica: Annotated[
        str,
        typer.Option(
            help="Which of these rows.",
            metavar="engine=…,model=…,gpu=…,tensor_parallel=…",
            show_default="all of them",
        ),
    ] = "",
    beside: Annotated[
        str,
        typer.Option(
            help="Rules of others, untuned: hpa_rate, hpa_load, kpa, wva, dynamo, static.",
            metavar="RULE,…",
            show_default="none",
        ),
    ] = "",
    html: Html = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 240.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Try one pool of a scaling file on a trace, without budgets and money. Changes nothing."""
    text, arrivals = text_of(file), trace_of(trace)
    request = pb.SimulateRequest(
        content=text,
        pool=pool,
        trace=arrivals,
        times=times,
        page=html is not None,
        generator=pb.Generator.Value(f"GENERATOR_{generator.upper()}"),
        replica=replica_of(capacity) if capacity else None,
        rows=b"" if rows is None else rows_from(rows, len(arrivals)),
        rows_of=rows_of(replica) if replica else {},
        beside=[one.strip() for one in beside.split(",")] if beside else [],
    )
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            await require_good(scaler, file, text, timeout)
            found = await tried(scaler, "Simulate", request, "simulation", timeout)
        if html is not None:
            write_page(html, found.page)
        course, assumed = course_of(found.course), assumed_of(found.replica)
        others = [
            Baseline(one.name, one.title, course_of(one.course), dict(one.knobs))
            for one in found.beside
        ]
        if as_json:
            more = {"pool": found.pool, "seconds": seconds_of(found.span)}
            print_json(
                "simulation", course, **more, requests=found.requests, arrivals=found.arrivals,
                replica=assumed, beside=others,
            )  # fmt: skip
            return
        rows_shown = {found.pool: course}
        rows_shown.update((f"{one.title} (untuned)", one.course) for one in others)
        screen = console()
        print_table(screen, _table(rows_shown))
        for one in others:
            knobs = ", ".join(f"{name} {value:.4g}" for name, value in sorted(one.knobs.items()))
            say(screen, plain(f"{one.title}, untuned: {knobs}"), "dim")
        say(screen, plain(f"{found.pool}: replicas are taken to be {assumed.in_words}"), "dim")
        lasting = span(seconds_of(found.span))
        say(screen, plain(f"{found.requests:,} requests in {lasting}, {found.arrivals}"), "dim")
        say(screen, plain(f"{found.pool} is tried {ALONE}"), "dim")

    run(work(), target, service="scaler")


def _table(found: dict[str, Course]) -> Table:
    table = Table()
    add_columns(table, ("pool",), numbers=FIGURES)
    for pool, course in found.items():
        table.add_row(line(pool), *figures_of(course))
    return table
