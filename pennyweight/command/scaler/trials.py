"""``scaler plan``: what a scaling file would have done on the recorded days."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from pennyweight.command.ending import FAILED, end, run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.refused import note_lines, problem_lines
from pennyweight.command.scaler.assumptions import (
    FORM,
    Assumed,
    Difference,
    Html,
    assumed_of,
    difference_of,
    differences_table,
    replicas_of,
    write_page,
)
from pennyweight.command.scaler.link import Days, Scaler, ScalingFile, reach, text_of
from pennyweight.command.show import (
    add_columns,
    console,
    dollars,
    line,
    moment,
    plain,
    print_json,
    print_table,
    say,
)
from pennyweight.errors import PennyweightError
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import duration_of, name_of, problem_of, seconds_of, time_of

DAY_SECONDS = 86_400
STYLES = {"better": "green", "worse": "red", "unknown": "yellow"}
APPLY_HINT = "`--anyway REASON` applies it all the same; the reason goes on record."

HOLDING = ("budget", "money", "room", "max")
"""Bounds that keep a pool from more than it asks for."""


@dataclass(frozen=True)
class BoundShare:
    """How often one thing decided a pool's size, as a share of the decisions."""

    bound: str
    detail: str
    share: float


@dataclass(frozen=True)
class Course:
    """How a pool fared in a trial; attainment None: nothing was asked of it."""

    replica_hours: float
    micro_usd: int
    attainment: float | None
    changes_per_hour: float
    wasted_hours: float
    mean_wait_seconds: float
    max_size: int
    bounds: tuple[BoundShare, ...]


@dataclass(frozen=True)
class PoolPlan:
    """What two scaling files would have done with one pool; a course None: it was not tried."""

    pool: str
    live: Course | None
    planned: Course | None
    differences: tuple[Difference, ...]
    differences_found: int
    replica: Assumed | None
    untried: str


@dataclass(frozen=True)
class Plan:
    """What a scaling file would have done on the recorded days, beside the one in force.

    Its own courses are those of all pools together; None: fewer than two were tried.
    """

    verdict: str
    because: str
    since: dt.datetime | None
    until: dt.datetime | None
    recorded_share: float
    pools: tuple[PoolPlan, ...]
    live: Course | None
    planned: Course | None
    reason_needed: bool


def plan(
    file: ScalingFile,
    *,
    days: Days = 7.0,
    capacity: Annotated[
        list[str] | None,
        typer.Option(
            "--capacity",
            help="Take a pool's replicas to be this, as a plan prints it; one for each pool.",
            metavar=f"POOL:{FORM}",
            show_default="as measured",
        ),
    ] = None,
    html: Html = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 240.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Show what a scaling file would have decided on the recorded days, beside the one in force.

    Changes nothing. Exit status 1: `apply` would refuse it without a reason, as it does worse, or
    as nobody can say though enough load is on record.
    """
    text = text_of(file)
    replicas = replicas_of(capacity or [])
    target = Target(address, tls_ca, tls_certificate, tls_key)
    refused = False

    async def work() -> None:
        nonlocal refused
        request = pb.PlanPolicyRequest(
            content=text,
            span=duration_of(days * DAY_SECONDS),
            page=html is not None,
            replicas=replicas,
        )
        async with reach(target) as scaler:
            await require_good(scaler, file, text, timeout)
            message = await last_of(scaler, "PlanPolicy", request, "plan", timeout)
        if message is None:
            end("The scaler ended the trial without an answer.")
        found = _plan(message)
        refused = found.reason_needed
        if as_json:
            print_json("plan", found)
        else:
            print_plan(found)
        if html is not None:
            write_page(html, message.page)

    run(work(), target, service="scaler")
    if refused:
        raise typer.Exit(FAILED)


async def require_good(scaler: Scaler, file: Path, text: str, timeout_seconds: float) -> None:
    """Ends the command where a file would be refused, with what `check` says; tells its notes."""
    request = pb.ValidatePolicyRequest(content=text)
    found = await scaler.ask("ValidatePolicy", request, timeout_seconds)
    if found.problems:
        problems = problem_lines([problem_of(one) for one in found.problems])
        end("\n".join([f"{file} would be refused:", *problems]))
    for note in note_lines([problem_of(one) for one in found.notes]):
        say(console(stderr=True), note, "yellow")


async def planned(
    scaler: Scaler, text: str, days: float, timeout_seconds: float, *, tolerant: bool = False
) -> Plan | None:
    """A plan, with a bar of how far it is; None: there is none.

    Args:
        scaler: makes it.
        text: the file.
        days: recorded days.
        timeout_seconds: seconds for all of it.
        tolerant: an error is told, and is no end.
    """
    request = pb.PlanPolicyRequest(content=text, span=duration_of(days * DAY_SECONDS))
    try:
        found = await last_of(scaler, "PlanPolicy", request, "plan", timeout_seconds)
    except PennyweightError as error:
        if not tolerant:
            raise
        say(console(stderr=True), plain(f"It could not be tried: {error}."), "yellow")
        return None
    return None if found is None else _plan(found)


def print_plan(found: Plan) -> None:
    """A plan as a table, with its verdict."""
    screen = console()
    tried = [one for one in found.pools if not one.untried]
    if tried:
        print_table(screen, _table(found, tried), named_by=2)
    for one in tried:
        for held in _held(one):
            say(screen, plain(held))
    if any(one.differences for one in tried):
        differ = {one.pool: one.differences for one in tried}
        print_table(screen, differences_table(differ), named_by=2)
    for one in tried:
        for said in _notes(one):
            say(screen, plain(said), "dim")
    for one in found.pools:
        if one.untried:
            say(screen, plain(f"{one.pool} was not tried: {one.untried}"), "dim")
    if found.since is not None:
        share = f"{found.recorded_share:.0%} of the minutes on record"
        say(screen, f"{moment(found.since)} to {moment(found.until)}, {share}", "dim")
    say(screen, plain(f"{found.verdict}: {found.because}"), STYLES.get(found.verdict, ""))


def course_of(message: pb.Course) -> Course:
    """A course as it is shown."""
    return Course(
        replica_hours=message.replica_hours,
        micro_usd=message.micro_usd,
        attainment=message.attainment if message.HasField("attainment") else None,
        changes_per_hour=message.changes_per_hour,
        wasted_hours=message.wasted_hours,
        mean_wait_seconds=seconds_of(message.mean_wait),
        max_size=message.max_size,
        bounds=tuple(
            BoundShare(name_of(pb.Bound.DESCRIPTOR, "BOUND", one.bound), one.detail, one.share)
            for one in message.bounds
        ),
    )


async def last_of(
    scaler: Scaler, method: str, request: Any, field: str, timeout_seconds: float
) -> Any:
    """The last message of a trial, with a bar on a terminal meanwhile."""
    aside = console(stderr=True)
    with Progress(console=aside, transient=True, disable=not aside.is_terminal) as bar:
        task = bar.add_task("trying", total=1.0)
        async for message in scaler.stream(method, request, timeout_seconds):
            if message.WhichOneof("step") == field:
                return getattr(message, field)
            bar.update(task, completed=message.progress)
    return None


def _plan(message: pb.Plan) -> Plan:
    return Plan(
        verdict=name_of(pb.PlanVerdict.DESCRIPTOR, "PLAN_VERDICT", message.verdict),
        because=message.because,
        since=time_of(message.since) if message.HasField("since") else None,
        until=time_of(message.until) if message.HasField("until") else None,
        recorded_share=message.recorded_share,
        pools=tuple(
            PoolPlan(
                pool=one.pool,
                live=course_of(one.live) if one.HasField("live") else None,
                planned=course_of(one.planned) if one.HasField("planned") else None,
                differences=tuple(difference_of(some) for some in one.differences),
                differences_found=one.differences_found,
                replica=assumed_of(one.replica) if one.HasField("replica") else None,
                untried=one.untried,
            )
            for one in message.pools
        ),
        live=course_of(message.live) if message.HasField("live") else None,
        planned=course_of(message.planned) if message.HasField("planned") else None,
        reason_needed=message.reason_needed,
    )


def _notes(pool: PoolPlan) -> Iterator[str]:
    """How many differences are left out, and what its replicas were taken to be."""
    told = len(pool.differences)
    if pool.differences_found > told:
        yield (
            f"{pool.pool}: of {pool.differences_found:,} times in which the sizes differ, "
            f"the {told} of most replica-hours"
        )
    if pool.replica is not None:
        yield f"{pool.pool}: replicas are taken to be {pool.replica.in_words}"


FIGURES = ("hours", "cost", "in time", "changes/h", "wasted h", "wait", "most")
"""Hours are those of replicas."""


def figures_of(course: Course) -> tuple[str, ...]:
    """A course as cells, in the order of `FIGURES`."""
    attainment = course.attainment
    return (
        f"{course.replica_hours:,.2f}",
        dollars(course.micro_usd) if course.micro_usd else "-",
        "-" if attainment is None else f"{attainment:.2%}",
        f"{course.changes_per_hour:.2f}",
        f"{course.wasted_hours:.2f}",
        f"{course.mean_wait_seconds:.2f} s",
        str(course.max_size),
    )


def _table(found: Plan, pools: list[PoolPlan]) -> Table:
    table = Table()
    add_columns(table, ("pool", "by"), numbers=FIGURES)
    rows = [(one.pool, one.live, one.planned) for one in pools]
    for name, live, planned in [*rows, ("all", found.live, found.planned)]:
        for by, course in (("in force", live), ("planned", planned)):
            if course is not None:
                table.add_row(line(name), by, *figures_of(course))
    return table


def _held(pool: PoolPlan) -> list[str]:
    """What kept a pool from more than it asked for, a sentence each."""
    shares = [
        {} if course is None else {(one.bound, one.detail): one.share for one in course.bounds}
        for course in (pool.live, pool.planned)
    ]
    return [
        f"{pool.pool}: {' '.join(filter(None, which))} held it in "
        f"{shares[0].get(which, 0.0):.0%} of the decisions by the file in force and in "
        f"{shares[1].get(which, 0.0):.0%} by this"
        for which in dict.fromkeys([*shares[0], *shares[1]])
        if which[0] in HOLDING
    ]
