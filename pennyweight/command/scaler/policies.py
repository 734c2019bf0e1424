"""``scaler check``, ``apply``, ``history``, ``rollback``: scaling files in force and back."""

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command import policy
from pennyweight.command.ending import end, run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.levers import name_of_user
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.scaler.link import Author, Days, Scaler, ScalingFile, reach, text_of
from pennyweight.command.scaler.plans import print_plan
from pennyweight.command.scaler.trials import APPLY_HINT, DAY_SECONDS, planned, require_good
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    moment,
    plain,
    print_json,
    print_table,
    say,
)
from pennyweight.errors import NotNow, Outrun
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import duration_of, name_of, time_of

HINTS = {
    **dict.fromkeys(("POLICY_WORSE", "POLICY_UNKNOWN", "TIER_UNSERVED"), APPLY_HINT),
    "POLICY_CHANGED": "`--anyway REASON` writes over an edit by hand, which is kept; the reason "
    "goes on record.",
}
"""What `--anyway` does about a refusal, by its reason."""

HASH_SHOWN = 12
SEARCHED = 100
"""Newest versions, among which one is in force: edits are undone once a minute at most."""
IN_FORCE_SECONDS = 30.0
"""What putting a file in force may take, beside the time of a trial."""


@dataclass(frozen=True)
class Version:
    """A scaling file that was in force; number 0: it is not yet."""

    number: int
    hash: str
    since: dt.datetime | None
    source: str
    author: str
    note: str
    anyway_reason: str
    rolled_back_to: int
    verdict: str
    because: str


def check(
    file: ScalingFile,
    *,
    routes: Annotated[
        Path | None,
        typer.Option(
            help="Routes whose tiers the pools serve.", show_default="routes.yaml beside the file"
        ),
    ] = None,
    no_models: Annotated[bool, typer.Option("--no-models", help="Models lie elsewhere.")] = False,
    this_machine: Annotated[
        bool,
        typer.Option("--this-machine", help="Pools run here: their cores have to be there too."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether a scaler would take this file; needs none that runs, as in CI.

    The same as `policy check`. Exit status 0: it would; notes say what else it needs. 1: it would
    not; file, line, key, rule and value say why. 2: it could not be checked.
    """
    policy.check(
        [file],
        routes=routes,
        kind=policy.Kind.SCALING,
        no_models=no_models,
        this_machine=this_machine,
        as_json=as_json,
    )


def apply(
    file: ScalingFile,
    *,
    note: Annotated[str, typer.Option(help="What it is for, in a few words.", show_default=False)],
    anyway: Annotated[
        str,
        typer.Option(
            "--anyway",
            help="Why it is to come in force though it does worse on the recorded days, nobody can "
            "say how it does, it leaves a tier without a pool, or it is written over an edit by "
            "hand that is not in force.",
            metavar="REASON",
            show_default="it is refused then",
        ),
    ] = "",
    author: Author = None,
    days: Days = 7.0,
    as_json: Json = False,
    timeout: TimeoutSeconds = 240.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Put a scaling file in force: checked, tried on the recorded days, written whole.

    A file that does worse than the one in force is refused, and so is one of which nobody can say
    though 30 minutes and 100 requests are on record, one that leaves a tier without a pool, and one
    where somebody else changed the file meanwhile. Exit status 1: it is refused.
    """
    who, text = author or name_of_user(), text_of(file)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            await require_good(scaler, file, text, timeout)
            live = await _in_force(scaler, timeout)
            request = pb.ApplyPolicyRequest(
                content=text,
                author=who,
                note=note,
                anyway_reason=anyway,
                based_on=live.hash,
                span=duration_of(days * DAY_SECONDS),
            )
            if live.hash != hashlib.sha256(text.encode()).hexdigest() and not as_json:
                plan = await planned(scaler, text, days, timeout, tolerant=bool(anyway))
                if plan is not None:
                    print_plan(plan)
                    if plan.reason_needed and not anyway:
                        end("It is not applied.", APPLY_HINT)
            try:
                found = await scaler.ask("ApplyPolicy", request, timeout)
            except (NotNow, Outrun) as error:
                if hint := "" if anyway else HINTS.get(error.reason):
                    error.add_note(hint)
                raise
        version = _version(found.version)
        if as_json:
            print_json("applied", version, in_force=found.in_force)
            return
        _print_change(version, live, in_force=found.in_force)

    run(work(), target, service="scaler")


def history(
    *,
    show: Annotated[
        int | None,
        typer.Option("--show", help="Print the file of this version.", metavar="VERSION", min=1),
    ] = None,
    most: Annotated[int, typer.Option("--most", help="At most so many.", min=1, max=1000)] = 20,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """List the scaling files that are or were in force or undone: since when, by whom, what for."""
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        request = pb.ListPolicyVersionsRequest(max_results=max(most, SEARCHED))
        async with reach(target) as scaler:
            found = await scaler.ask("ListPolicyVersions", request, timeout)
            versions = found.versions[:most]
            if show is not None:
                request = pb.ListPolicyVersionsRequest(number=show)
                versions = (await scaler.ask("ListPolicyVersions", request, timeout)).versions
        if show is not None and not as_json:
            print(plain(versions[0].content), end="")  # noqa: T201
            return
        live = _live_of(found).number
        if as_json:
            for one in versions:
                more = {"content": one.content} if show is not None else {}
                print_json("policy_version", _version(one), in_force=one.number == live, **more)
            return
        print_table(console(), _table([_version(one) for one in versions], live))
        if found.read_only:
            say(console(stderr=True), plain(f"{found.read_only}."), "yellow")

    run(work(), target, service="scaler")


def rollback(
    version: Annotated[
        int,
        typer.Argument(
            metavar="[VERSION]",
            help="As `scaler history` numbers it.",
            show_default="the one before",
            min=0,
        ),
    ] = 0,
    *,
    note: Annotated[str, typer.Option(help="Why, in a few words.", show_default="its number")] = "",
    author: Author = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 30.0,
    address: ScalerAddress = "127.0.0.1:50053",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Put an earlier scaling file in force again, as a new version. It is not tried before."""
    request = pb.RollbackPolicyRequest(number=version, author=author or name_of_user(), note=note)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with reach(target) as scaler:
            live = await _in_force(scaler, timeout)
            found = await scaler.ask("RollbackPolicy", request, timeout)
        changed = _version(found.version)
        if as_json:
            print_json("rolled_back", changed, in_force=found.in_force)
            return
        _print_change(changed, live, in_force=found.in_force)

    run(work(), target, service="scaler")


async def _in_force(scaler: Scaler, timeout_seconds: float) -> pb.PolicyVersion:
    request = pb.ListPolicyVersionsRequest(max_results=SEARCHED)
    return _live_of(await scaler.ask("ListPolicyVersions", request, timeout_seconds))


def _live_of(found: pb.ListPolicyVersionsResponse) -> pb.PolicyVersion:
    """The version in force, which is the newest that was not undone."""
    were = (one for one in found.versions if one.source != pb.POLICY_SOURCE_UNDONE)
    return next(were, pb.PolicyVersion())


def _version(message: pb.PolicyVersion) -> Version:
    return Version(
        number=message.number,
        hash=message.hash,
        since=time_of(message.since) if message.HasField("since") else None,
        source=name_of(pb.PolicySource.DESCRIPTOR, "POLICY_SOURCE", message.source),
        author=message.author,
        note=message.note,
        anyway_reason=message.anyway_reason,
        rolled_back_to=message.rolled_back_to,
        verdict=name_of(pb.PlanVerdict.DESCRIPTOR, "PLAN_VERDICT", message.verdict)
        if message.verdict
        else "",
        because=message.because,
    )


def _print_change(version: Version, live: pb.PolicyVersion, *, in_force: bool) -> None:
    if version.hash == live.hash:
        say(console(), f"The file is version {version.number}, which is in force already.")
        return
    if in_force:
        back = f", the file of version {version.rolled_back_to}" if version.rolled_back_to else ""
        say(console(), f"Version {version.number} is in force{back}.")
        say(console(), "`pennyweight scaler rollback` takes it back.", "dim")
        return
    sentence = (
        "The file is written and not in force yet; `pennyweight pools` says why if it stays so."
    )
    say(console(stderr=True), sentence, "yellow")


def _table(found: list[Version], live: int) -> Table:
    table = Table()
    add_columns(table, ("version", "since", "from", "by", "note", "tried", "hash"))
    for one in found:
        source = f"rollback to {one.rolled_back_to}" if one.rolled_back_to else one.source
        note = one.note
        if one.anyway_reason:
            note = f"{note} (all the same: {one.anyway_reason})"
        table.add_row(
            f"{one.number}, in force" if one.number == live else str(one.number),
            moment(one.since),
            source,
            line(one.author) or "not known",
            line(note) or "-",
            one.verdict or "-",
            one.hash[:HASH_SHOWN],
        )
    return table
