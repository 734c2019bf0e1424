"""``scaler why`` and ``scaler watch``: what was decided about sizes, and the reasons."""

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pennyweight.command.ending import end, run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.levers import seconds_of
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.scaler.figures import measured_and_against
from pennyweight.command.scaler.link import PoolName, Scaler, Word, moment_of, reach
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
    words,
)
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import name_of, time_of

POOLS_SECONDS = 10.0
"""Until giving up to learn which pools there are."""


@dataclass(frozen=True)
class Constraint:
    """One thing that bound a size."""

    bound: str
    detail: str
    size: int
    value: float | None
    limit: float | None


@dataclass(frozen=True)
class Decision:
    """A pool's size, and why."""

    pool: str
    decided_at: dt.datetime
    size: int
    size_before: int
    micro_usd_per_hour: int
    micro_usd_per_hour_before: int
    demand: float | None
    why: str
    why_not_fewer: str
    why_not_more: str
    policy_version: int
    constraints: tuple[Constraint, ...]


def why(
    pool: PoolName,
    *,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="The decision that held then: 2026-11-29T01:15:00Z, or how long ago: 10m.",
            show_default="now",
        ),
    ] = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Say why a pool has its size, why not one fewer, why not one more, and all that bound it."""
    request = pb.ListDecisionsRequest(pool=pool, current=at is None, max_results=1)
    if at is not None:
        request.until.CopyFrom(moment_of(at, dt.datetime.now(dt.UTC), "--at"))
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            found = await scaler.ask("ListDecisions", request, timeout)
            if not found.decisions:
                await _end_without(scaler, pool, timeout, request)
        decision = decision_of(found.decisions[0])
        if as_json:
            print_json("decision", decision)
            return
        _print(console(), decision)
        if found.missing or found.damaged:
            say(console(stderr=True), gaps_line(found.missing, found.damaged), "yellow")

    run(work(), target, service="scaler")


def watch(
    pool: Annotated[
        str, typer.Argument(metavar="[POOL]", help="Only this pool.", show_default="all")
    ] = "",
    *,
    lasting: Annotated[
        str | None,
        typer.Option("--for", help="How long, such as 10m.", show_default="until interrupted"),
    ] = None,
    as_json: Json = False,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Show decisions as they are made: what holds now, then each change.

    Where the scaler goes away it waits for it to come back.
    """
    seconds = None if lasting is None else seconds_of(lasting)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    aside = console(stderr=True)
    shown: dict[str, tuple[object, ...]] = {}

    def told(word: Word) -> None:
        away = word == "away"
        sentence = "The scaler is away; waiting for it." if away else "The scaler is back."
        say(aside, sentence, "yellow" if away else "green")

    async def work() -> None:
        async with reach(target) as scaler:
            if pool:
                await scaler.require(pool, POOLS_SECONDS)
            request = pb.WatchDecisionsRequest(pool=pool)
            async for message in scaler.follow("WatchDecisions", request, seconds, told):
                if not message.HasField("decision"):
                    continue
                decision = decision_of(message.decision)
                if shown.get(decision.pool) != _reason_of(decision):  # else it held before
                    shown[decision.pool] = _reason_of(decision)
                    _print_line(decision, as_json=as_json)

    run(work(), target, service="scaler")


def _reason_of(decision: Decision) -> tuple[object, ...]:
    """What makes a decision another one: the size, or what bound it last."""
    last = decision.constraints[-1:]
    return decision.size, *((one.bound, one.detail) for one in last)


def decision_of(message: pb.Decision) -> Decision:
    """A decision as it is shown."""
    return Decision(
        pool=message.pool,
        decided_at=time_of(message.decided_at),
        size=message.size,
        size_before=message.size_before,
        micro_usd_per_hour=message.micro_usd_per_hour,
        micro_usd_per_hour_before=message.micro_usd_per_hour_before,
        demand=message.demand if message.HasField("demand") else None,
        why=message.why,
        why_not_fewer=message.why_not_fewer,
        why_not_more=message.why_not_more,
        policy_version=message.policy_version,
        constraints=tuple(
            Constraint(
                name_of(pb.Bound.DESCRIPTOR, "BOUND", one.bound),
                one.detail,
                one.size,
                one.value if one.HasField("value") else None,
                one.limit if one.HasField("limit") else None,
            )
            for one in message.constraints
        ),
    )


def gaps_line(missing: int, damaged: int) -> str:
    """What the record lacks."""
    said = []
    if missing:
        said.append(f"{missing:,} decisions could not be kept")
    if damaged:
        said.append(f"{damaged:,} lines of the record cannot be read")
    return f"The record has gaps: {' and '.join(said)}."


async def _end_without(
    scaler: Scaler, pool: str, timeout_seconds: float, asked: pb.ListDecisionsRequest
) -> None:
    """Ends the command: nothing is known of the pool, or not of that time."""
    await scaler.require(pool, timeout_seconds)
    if asked.HasField("until"):
        sentence = f"The record has no decision about {pool} up to {moment(time_of(asked.until))}."
        end(sentence, f"`pennyweight scaler why {pool}` tells what holds now.")
    end(f"There is no decision about {pool} yet.", "A pool with a fixed size has none.")


def _print(screen: Console, decision: Decision) -> None:
    price = decision.micro_usd_per_hour
    head = Text(f"{line(decision.pool)}: {decision.size}", style="bold")
    since = f"decided {moment(decision.decided_at)}, before {decision.size_before}"
    details = [since]
    if price or decision.micro_usd_per_hour_before:
        before = dollars(decision.micro_usd_per_hour_before)
        details.append(f"{dollars(price)} an hour, before {before}")
    if decision.demand is not None:
        details.append(f"demand of {decision.demand:.2f} replicas")
    if decision.policy_version:
        details.append(f"policy version {decision.policy_version}")
    say(screen, Text.assemble(head, (f" · {' · '.join(details)}", "dim")))
    for sentence in (decision.why, decision.why_not_fewer, decision.why_not_more):
        if sentence:
            say(screen, plain(sentence))
    if decision.constraints:
        print_table(screen, _table(decision.constraints), named_by=2)


def _table(constraints: tuple[Constraint, ...]) -> Table:
    table = Table()
    add_columns(table, ("bound", "of"), numbers=("size", "measured", "against"))
    for one in constraints:
        table.add_row(
            words(one.bound),
            line(one.detail) or "-",
            str(one.size),
            *measured_and_against(one.bound, one.detail, one.value, one.limit),
        )
    return table


def _print_line(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        print_json("decision", decision)
        return
    change = f"{decision.size_before} → {decision.size}"
    if decision.size == decision.size_before:
        change = f"{decision.size}"
    style = "green" if decision.size > decision.size_before else ""
    style = "magenta" if decision.size < decision.size_before else style
    say(
        console(),
        Text.assemble(
            (f"{moment(decision.decided_at)} ", "dim"),
            (f"{line(decision.pool)} {change} ", style or "bold"),
            line(decision.why),
        ),
    )
