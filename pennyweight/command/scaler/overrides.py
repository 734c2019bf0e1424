"""``scaler pause``, ``pin``, ``resume`` and ``overrides``: what operators set for a time."""

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command.ending import run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.levers import name_of_user
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.scaler.link import Author, PoolName, lasting_of, reach
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    moment,
    print_json,
    print_table,
    say,
    words,
)
from pennyweight.errors import NotNow
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import duration_of, name_of, time_of

UNSAVED = "The scaler's disk refuses it: a restart of the scaler forgets it."

Reason = Annotated[str, typer.Option(help="Why, in a few words.", show_default=False)]
Lasting = Annotated[
    str, typer.Option("--for", help="How long, such as 45m or 1d12h.", show_default=False)
]


@dataclass(frozen=True)
class Override:
    """What holds for a pool instead of what would be decided."""

    pool: str
    override: str
    size: int
    author: str
    reason: str
    since: dt.datetime
    expires: dt.datetime
    unsaved: bool


def pause(
    pool: PoolName,
    *,
    lasting: Lasting,
    reason: Reason,
    no_scale_down: Annotated[
        bool, typer.Option("--no-scale-down", help="It may still grow; only nothing goes.")
    ] = False,
    author: Author = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Keep a pool at its size for a time."""
    kind = pb.OVERRIDE_KIND_NO_SCALE_DOWN if no_scale_down else pb.OVERRIDE_KIND_PAUSE
    request = pb.SetOverrideRequest(pool=pool, kind=kind, reason=reason)
    target = Target(address, tls_ca, tls_certificate, tls_key)
    _set(target, request, lasting, author, timeout, as_json=as_json)


def pin(
    pool: PoolName,
    size: Annotated[
        int, typer.Argument(metavar="N", help="Replicas.", show_default=False, min=0, max=1024)
    ],
    *,
    lasting: Lasting,
    reason: Reason,
    yes: Annotated[
        bool, typer.Option("--yes", help="At 0: nothing is to serve the pool's tier.")
    ] = False,
    author: Author = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Give a pool a size for a time."""
    request = pb.SetOverrideRequest(
        pool=pool, kind=pb.OVERRIDE_KIND_PIN, size=size, reason=reason, may_stop_tier=yes
    )
    target = Target(address, tls_ca, tls_certificate, tls_key)
    _set(target, request, lasting, author, timeout, as_json=as_json)


def resume(
    pool: PoolName,
    *,
    author: Author = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """End a pool's pause or pin before its time."""
    request = pb.ClearOverrideRequest(pool=pool, author=author or name_of_user())
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            found = await scaler.ask("ClearOverride", request, timeout)
        if not found.HasField("override"):
            if not as_json:
                say(console(), f"{line(pool)} had no override.")
            return
        ended = _override(found.override)
        if as_json:
            print_json("ended_override", ended)
            return
        say(console(), f"{line(pool)} is decided again; {_what(ended)} is over.")
        if ended.unsaved:
            say(console(stderr=True), UNSAVED, "yellow")

    run(work(), target, service="scaler")


def overrides(
    *,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """List what operators set for pools for a time."""
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            found = await scaler.ask("ListOverrides", pb.ListOverridesRequest(), timeout)
        listed = [_override(one) for one in found.overrides]
        if as_json:
            for one in listed:
                print_json("override", one)
            return
        if not listed:
            say(console(), "None holds.")
            return
        print_table(console(), _table(listed))

    run(work(), target, service="scaler")


def _set(
    target: Target,
    request: pb.SetOverrideRequest,
    lasting: str,
    author: str | None,
    timeout: float,
    *,
    as_json: bool,
) -> None:
    request.expires_after.CopyFrom(duration_of(lasting_of(lasting)))
    request.author = author or name_of_user()

    async def work() -> None:
        async with reach(target) as scaler:
            try:
                found = await scaler.ask("SetOverride", request, timeout)
            except NotNow as error:
                if error.reason == "PIN_STOPS_TIER":
                    error.add_note("`--yes` pins it all the same.")
                raise
        held = _override(found.override)
        replaced = _override(found.replaced) if found.HasField("replaced") else None
        if as_json:
            print_json("override", held, replaced=replaced, most=found.most or None)
            return
        say(console(), f"{line(held.pool)}: {_what(held)} until {moment(held.expires)}.")
        if found.most:
            sentence = f"At most {found.most} can come ({line(found.most_by)})."
            say(console(stderr=True), sentence, "yellow")
        if replaced is not None:
            by = f" by {line(replaced.author)}" if replaced.author else ""
            until = moment(replaced.expires)
            sentence = f"It takes the place of {_what(replaced)}{by}, which held until {until}."
            say(console(stderr=True), sentence, "yellow")
        if held.unsaved:
            say(console(stderr=True), UNSAVED, "yellow")

    run(work(), target, service="scaler")


def _override(message: pb.Override) -> Override:
    return Override(
        pool=message.pool,
        override=name_of(pb.OverrideKind.DESCRIPTOR, "OVERRIDE_KIND", message.kind),
        size=message.size,
        author=message.author,
        reason=message.reason,
        since=time_of(message.since),
        expires=time_of(message.expires),
        unsaved=message.unsaved,
    )


def _what(one: Override) -> str:
    return f"pin at {one.size}" if one.override == "pin" else words(one.override)


def _table(listed: list[Override]) -> Table:
    table = Table()
    add_columns(table, ("pool", "override", "since", "by", "reason", "expires"))
    for one in listed:
        table.add_row(
            line(one.pool),
            _what(one),
            moment(one.since),
            line(one.author) or "-",
            line(one.reason) or "-",
            moment(one.expires),
        )
    return table
