"""``python -m services.local up|demo|traffic``: the whole stack on this machine.

Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 3 nothing answers.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from pennyweight import Client
from pennyweight.command import ending
from pennyweight.command.options import (
    Address,
    Target,
    TlsCa,
    TlsCertificate,
    TlsKey,
    connect,
)
from pennyweight.command.show import console
from services.common.files import resolved
from services.local.beside import console_beside
from services.local.demo import run_demo
from services.local.own_records import OwnRecords
from services.local.plan import ADDRESSES, ROOT, Plan, StackError, plan, plan_demo
from services.local.screen import Screen
from services.local.stack import Stack, Stop
from services.local.status import Observer, Status
from services.local.traffic import Wanted, questions
from services.local.traffic_report import run_traffic

REFRESH_SECONDS = 1.0

Body: TypeAlias = Callable[[Stack, Screen], Coroutine[Any, Any, bool]]

app = typer.Typer(
    help="Run cache, scaler, router and replicas on this machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
State = Annotated[Path, typer.Option(help="Folder for logs, ledger and replicas.")]


@app.command()
def up(
    state: State = ROOT / "state",
    *,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Take free ports instead of the usual ones.")
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="TIER=FOLDER: replicas of this tier load these weights, a folder below the "
            "model's, and say nothing of it: small=weights/damaged, as `make damage` makes them. "
            "May be given again for another tier."
        ),
    ] = None,
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    state = resolved(state)

    async def body(stack: Stack, screen: Screen) -> bool:
        await screen.show_start(stack.starting())
        screen.show_up(stack.plan)
        await screen.show_status(_statuses(stack))
        return True

    raise typer.Exit(
        _run(lambda: plan(os.environ, state, any_port=any_port, weights=weights or ()), body)
    )


@app.command()
def demo(state: State = ROOT / "state") -> None:
    """Start everything on free ports, ask questions, show what was saved, and stop."""

    async def body(stack: Stack, screen: Screen) -> bool:
        await screen.show_start(stack.starting())
        records = OwnRecords(stack.plan.ledger)
        async with Client(stack.plan["router"].address, api_key=stack.plan.key()) as client:
            answered = await run_demo(client, screen.console, records)
        screen.say(f"It is added up by: .venv/bin/pennyweight ledger --folder {stack.plan.ledger}")
        return answered

    state = resolved(state)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A place of its own, so that a demo runs beside a stack that is up.
        own = Path(tempfile.mkdtemp(prefix="demo-", dir=state))
    except OSError as error:
        why = f"{state} cannot be used: {error.strerror}"
        raise typer.BadParameter(why, param_hint="--state") from None
    code = _run(lambda: plan_demo(os.environ, state, own), body)
    if code == 0:
        shutil.rmtree(own)
    raise typer.Exit(code)


@app.command()
def traffic(
    *,
    route: Annotated[
        str, typer.Option(help="Route to ask.", envvar="PENNYWEIGHT_ROUTE")
    ] = "support-chat",
    requests: Annotated[int, typer.Option(help="How many questions.", min=1)] = 3000,
    in_flight: Annotated[
        int, typer.Option(help="Most that wait for an answer at a time.", min=1, max=1024)
    ] = 16,
    rate: Annotated[
        float | None,
        typer.Option(help="Questions a second, at most.", min=0.01, show_default="as answers come"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same questions.")] = 1,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Questions to draw from, again and again: one a line, or a .csv file with a "
            "column `text`.",
            show_default="made-up customers of a bank",
        ),
    ] = None,
    use_cache: Annotated[
        bool,
        typer.Option(
            "--use-cache",
            help="Let stored answers serve. Otherwise every question reaches a model, and answers "
            "are not stored.",
        ),
    ] = False,
    ledger: Annotated[
        Path,
        typer.Option(
            help="Folder of the router's ledger, which alone knows what evidence cost.",
            envvar="PENNYWEIGHT_ROUTER_LEDGER_FOLDER",
        ),
    ] = ROOT / "state/ledger",
    address: Address = ADDRESSES["router"][0],
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Ask a running stack many questions and show which tiers answered, why, and what it saved.

    Ctrl-C ends it early; so do failures of all the first questions.
    """
    wanted = Wanted(route, requests, in_flight, rate, use_cache)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    records = OwnRecords(ledger) if ledger.is_dir() else None

    async def work() -> None:
        asked = questions(file, seed)
        async with connect(target) as client:
            tally = await run_traffic(client, asked, wanted, console(), records)
        if tally.failures:
            raise typer.Exit(1)

    ending.run(work(), target)


def _run(planned: Callable[[], Plan], body: Body) -> int:
    """Runs the stack until the body is done, a part cannot be kept or the user stops it.

    Whether anybody reads what it says changes nothing.
    """
    with console_beside(sys.stdout) as console:
        screen = Screen(console)
        try:
            return asyncio.run(_supervise(planned(), screen, body))
        except StackError as error:
            screen.fail(error)
            return 1


async def _supervise(found: Plan, screen: Screen, body: Body) -> int:
    stop = Stop()
    async with Stack(found, stop, screen.say) as stack:
        work = asyncio.create_task(body(stack, screen))
        lost = asyncio.create_task(stack.kept())
        asked = asyncio.create_task(stop.asked.wait())
        try:
            await asyncio.wait({work, lost, asked}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise lost.result()
            return int(work.done() and not work.result())
        finally:
            for task in (work, lost, asked):
                task.cancel()
            await asyncio.gather(work, lost, asked, return_exceptions=True)


async def _statuses(stack: Stack) -> AsyncIterator[Status]:
    observer = Observer(stack)
    while True:
        yield await observer.look()
        await asyncio.sleep(REFRESH_SECONDS)


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("The stack runs on Linux; elsewhere, use `docker compose up`.")
    app()
