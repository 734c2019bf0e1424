"""``lever``: what saves and what is halted, and the kill switch."""

import getpass
import re
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from pennyweight.answers import Lever, LeverList, LeverWatch
from pennyweight.command.ending import USAGE, end, run
from pennyweight.command.options import (
    Address,
    Json,
    Target,
    TimeoutSeconds,
    TlsCa,
    TlsCertificate,
    TlsKey,
    connect,
)
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    moment,
    percent,
    points,
    print_json,
    print_table,
    say,
)

STYLES = {"on": "green", "halted": "red", "unknown": "yellow"}
UNSAVED = (
    "Only this router knows so far: what routers share cannot be written now. It is written, and "
    "the others are told, as soon as can be; a restart of this router before would lose it. Halt "
    "it at the other routers too."
)
UNKNOWN = (
    "What routers share cannot be reached, so this router uses no lever until it can: those shown "
    "as unknown count as halted too."
)
ALONE = (
    "Of halts shown as here alone only this router knows so far: halt those levers at the others "
    "too."
)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

lever = typer.Typer(
    help="List the levers of your routes; halt and release them.", no_args_is_help=True
)

Route = Annotated[str, typer.Argument(metavar="ROUTE", help="The route.", show_default=False)]
Name = Annotated[
    str, typer.Argument(metavar="LEVER", help="As `lever list` names it.", show_default=False)
]
Author = Annotated[
    str | None, typer.Option(help="Who asks for it.", show_default="your name on this machine")
]
Reason = Annotated[str, typer.Option(help="Why, in a few words.", show_default=False)]


@lever.command("list")
def list_levers(
    *,
    route: Annotated[str, typer.Option(help="One route.", show_default="all")] = "",
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """List levers: whether each is on, since when, by whom, why, and where its watch stands.

    Evidence is for a halt: at 100 % the guardrail halts the lever. All together: what the levers
    of a route lose in sum; where that is too much, the one with the most evidence is halted.
    """
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with connect(target, route=route) as client:
            found = await client.levers(route, timeout_seconds=timeout)
        if as_json:
            for one in found.levers:
                print_json("lever", one)
            for total in found.totals:
                print_json("total", total)
            return
        table, caption = _table(found), f"policy {found.policy_version}"
        print_table(console(), table, caption, named_by=2)
        notes = console(stderr=True)
        if any(one.state == "unknown" for one in found.levers):
            say(notes, UNKNOWN, "yellow")
        if any(_is_alone(one) for one in found.levers):
            say(notes, ALONE, "yellow")

    run(work(), target)


@lever.command()
def halt(
    route: Route,
    name: Name,
    *,
    reason: Reason,
    author: Author = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", help="How long, such as 2h or 1d12h.", show_default="until released"),
    ] = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Halt a lever, for all routers at once."""
    seconds = None if lasting is None else seconds_of(lasting)
    target = Target(address, tls_ca, tls_certificate, tls_key)
    _set(target, route, name, "halted", author, reason, seconds, timeout, as_json=as_json)


@lever.command()
def release(
    route: Route,
    name: Name,
    *,
    reason: Reason,
    author: Author = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Release a halted lever, for all routers at once."""
    target = Target(address, tls_ca, tls_certificate, tls_key)
    _set(target, route, name, "on", author, reason, None, timeout, as_json=as_json)


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as ``90s``, ``2h`` or ``1d12h``; ends the command on others."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", duration)
    if not parts or "".join(map("".join, parts)) != duration:
        end(f"{duration!r} is no duration.", "Write it as 90s, 45m, 2h or 1d12h.", code=USAGE)
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def _set(  # noqa: PLR0917 - the options of two commands
    target: Target,
    route: str,
    name: str,
    state: Literal["on", "halted"],
    author: str | None,
    reason: str,
    seconds: float | None,
    timeout_seconds: float,
    *,
    as_json: bool,
) -> None:
    who = author or name_of_user()

    async def work() -> None:
        async with connect(target, route=route, lever=name) as client:
            changed = await client.set_lever(
                route,
                name,
                state,
                author=who,
                reason=reason,
                expires_after_seconds=seconds,
                timeout_seconds=timeout_seconds,
            )
        if as_json:
            print_json("lever", changed)
            return
        until = f" until {moment(changed.expires)}" if changed.expires else ""
        sentence = f"{changed.name} of {changed.route} is {changed.state}{until}."
        say(console(), line(sentence))
        if changed.unsaved:
            say(console(stderr=True), UNSAVED)

    run(work(), target)


def name_of_user() -> str:
    """The name that this machine knows; ends the command where it knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        end("This machine does not know your name.", "Give it with --author.", code=USAGE)


def _table(found: LeverList) -> Table:
    table = Table()
    add_columns(table, ("route", "lever", "state", "since", "by", "reason", "expires", "watch"))
    for one in found.levers:
        table.add_row(
            line(one.route),
            line(one.name),
            Text(one.state + " here alone" * _is_alone(one), style=STYLES.get(one.state, "")),
            moment(one.since),
            line(one.author) or "-",
            line(one.reason) or "-",
            moment(one.expires),
            _watch(one.watch),
        )
    for total in found.totals:
        row = (total.route, "all together", *["-"] * 5)
        table.add_row(*row, "-" if total.watch is None else _watch(total.watch))
    return table


def _is_alone(one: Lever) -> bool:
    """Whether it is halted by a word that only this router has heard."""
    return one.unsaved and one.state == "halted"


def _watch(watch: LeverWatch | None) -> str:
    if watch is None:
        return "none"
    loss = f"loses {points(watch.mean_loss)} of {points(watch.allowed_loss)} allowed"
    if watch.level:  # what is allowed is more than was promised, and no loss: say why
        promised = points(watch.allowed_loss - watch.level)
        loss += f" ({promised} promised, {points(watch.level)} its judge saw at calibration)"
    return f"{watch.samples:,} samples, {loss}, evidence {percent(watch.evidence)}"
