"""``scaler plan``, and how trials are asked for: what a file would have done on recorded days."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from pennyweight.command.ending import FAILED, end, run
from pennyweight.command.fleet import ScalerAddress
from pennyweight.command.options import Json, Target, TimeoutSeconds, TlsCa, TlsCertificate, TlsKey
from pennyweight.command.refused import note_lines, problem_lines
from pennyweight.command.scaler.assumptions import FORM, Html, replicas_of, write_page
from pennyweight.command.scaler.link import Days, Scaler, ScalingFile, reach, text_of
from pennyweight.command.scaler.plans import Plan, plan_of, print_plan
from pennyweight.command.show import console, plain, print_json, say
from pennyweight.errors import PennyweightError
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.wire import duration_of, problem_of

DAY_SECONDS = 86_400
APPLY_HINT = "`--anyway REASON` applies it all the same; the reason goes on record."


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
            message = await tried(scaler, "PlanPolicy", request, "plan", timeout)
        found = plan_of(message)
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
        found = await _last_of(scaler, "PlanPolicy", request, "plan", timeout_seconds)
    except PennyweightError as error:
        if not tolerant:
            raise
        say(console(stderr=True), plain(f"It could not be tried: {error}."), "yellow")
        return None
    return None if found is None else plan_of(found)


async def tried(
    scaler: Scaler, method: str, request: Any, field: str, timeout_seconds: float
) -> Any:
    """What a trial came to; ends the command where the scaler does not say."""
    found = await _last_of(scaler, method, request, field, timeout_seconds)
    if found is None:
        end("The scaler ended the trial without an answer.")
    return found


async def _last_of(
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
