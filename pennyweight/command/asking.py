"""``ask`` and ``explain``: what the router is for."""

import sys
from typing import Annotated

import typer
from rich.text import Text

from pennyweight.answers import Delta, Event, Finished, Started
from pennyweight.client import Client
from pennyweight.command.ending import run
from pennyweight.command.options import Address, Json, TimeoutSeconds, TlsCa, connect
from pennyweight.command.show import (
    console,
    money,
    plain,
    print_decision,
    print_json,
    summary_line,
)
from pennyweight.questions import Options

Question = Annotated[str, typer.Argument(metavar="TEXT", help="What to ask.", show_default=False)]
Route = Annotated[str, typer.Option(help="Route to ask.", envvar="PENNYWEIGHT_ROUTE")]


def ask(
    text: Question,
    *,
    route: Route = "support-chat",
    whole: Annotated[bool, typer.Option("--whole", help="Wait for the whole answer.")] = False,
    as_json: Json = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what was decided.")] = False,
    max_output_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of the answer.", show_default="the route's")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(help="bypass or refresh the cache.", show_default="as the route says"),
    ] = None,
    timeout: TimeoutSeconds = 60.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
) -> None:
    """Ask a question. The answer goes to standard output, the line about it to standard error."""
    options: Options = {"timeout_seconds": timeout}
    if max_output_tokens is not None:
        options["max_output_tokens"] = max_output_tokens
    if cache is not None:
        options["cache_use"] = cache  # type: ignore[typeddict-item]  # the client checks the word

    async def work() -> None:
        async with connect(address, tls_ca) as client:
            if whole:
                await _ask_whole(client, route, text, options, as_json=as_json, explain=explain)
            else:
                await _ask_streamed(client, route, text, options, as_json=as_json, explain=explain)

    run(work(), address)


async def _ask_streamed(
    client: Client, route: str, text: str, options: Options, *, as_json: bool, explain: bool
) -> None:
    aside = console(stderr=True)
    async for event in client.generate(route, text, **options):
        if as_json:
            print_json(_kind_of(event), event)
        elif isinstance(event, Started) and explain:
            print_decision(aside, event.decision)
        elif isinstance(event, Delta):
            _write(event.text)
        elif isinstance(event, Finished):
            _write("\n")
            _print_summary(event, explain=explain)


async def _ask_whole(
    client: Client, route: str, text: str, options: Options, *, as_json: bool, explain: bool
) -> None:
    answer = await client.complete(route, text, **options)
    if as_json:
        print_json("answer", answer)
        return
    if explain:
        print_decision(console(stderr=True), answer.summary.decision)
    _write(answer.text + "\n")
    _print_summary(answer.summary, explain=explain)


def explain(
    text: Question,
    *,
    route: Route = "support-chat",
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
) -> None:
    """Say what would be decided for a question now, and why. Runs nothing."""

    async def work() -> None:
        async with connect(address, tls_ca) as client:
            found = await client.explain(route, text, timeout_seconds=timeout)
        if as_json:
            print_json("explanation", found)
            return
        screen = console()
        print_decision(screen, found.decision)
        cost = f"{found.prompt_tokens} prompt tokens · at most {money(found.max_micro_usd)}"
        screen.print(cost, style="dim", soft_wrap=True)

    run(work(), address)


def _print_summary(summary: Finished, *, explain: bool) -> None:
    aside = console(stderr=True)
    aside.print(summary_line(summary), soft_wrap=True)
    if explain:
        aside.print(Text(f"handle {summary.handle}", style="dim"), soft_wrap=True)


def _write(text: str) -> None:
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def _kind_of(event: Event) -> str:
    return type(event).__name__.lower()
