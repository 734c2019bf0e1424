"""``ask``, ``explain`` and ``routes``: what the router is for."""

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from pennyweight.answers import Delta, Event, Finished, Options, Started
from pennyweight.client import Client
from pennyweight.command.options import Address, TimeoutSeconds, TlsCa, connect
from pennyweight.command.outcome import run
from pennyweight.command.show import (
    console,
    decision_lines,
    money,
    plain,
    summary_line,
)

Text = Annotated[str, typer.Argument(help="What to ask.", show_default=False)]
Route = Annotated[str, typer.Option(help="Route to ask.", envvar="PENNYWEIGHT_ROUTE")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def ask(
    text: Text,
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
            _print_json(_kind_of(event), event)
        elif isinstance(event, Started) and explain:
            aside.print(decision_lines(event.decision), soft_wrap=True)
        elif isinstance(event, Delta):
            _write(event.text)
        elif isinstance(event, Finished):
            _write("\n")
            aside.print(summary_line(event), soft_wrap=True)


async def _ask_whole(
    client: Client, route: str, text: str, options: Options, *, as_json: bool, explain: bool
) -> None:
    answer = await client.complete(route, text, **options)
    if as_json:
        _print_json("answer", answer)
        return
    aside = console(stderr=True)
    if explain:
        aside.print(decision_lines(answer.summary.decision), soft_wrap=True)
    _write(answer.text + "\n")
    aside.print(summary_line(answer.summary), soft_wrap=True)


def explain(
    text: Text,
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
            _print_json("explanation", found)
            return
        screen = console()
        screen.print(decision_lines(found.decision), soft_wrap=True)
        cost = f"{found.prompt_tokens} prompt tokens · at most {money(found.max_micro_usd)}"
        screen.print(cost, style="dim", soft_wrap=True)

    run(work(), address)


def routes(
    *,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
) -> None:
    """List the routes your key may use, with their ladders, cheapest tier first."""

    async def work() -> None:
        async with connect(address, tls_ca) as client:
            found = await client.list_routes(timeout_seconds=timeout)
        if as_json:
            for route in found.routes:
                _print_json("route", route)
            return
        table = Table(caption=f"policy {found.policy_version}", caption_justify="left")
        for name in ("route", "tier", "model", "prompt / M", "output / M", "ready", "for"):
            right = name in ("prompt / M", "output / M", "ready")
            table.add_column(name, justify="right" if right else "left")
        for route in found.routes:
            for number, tier in enumerate(route.ladder):
                answers = " ◂ answers" if tier.name == route.fixed_tier else ""
                table.add_row(
                    route.name if number == 0 else "",
                    tier.name + answers,
                    f"{tier.model} {tier.precision}",
                    money(tier.prompt_micro_usd_per_million),
                    money(tier.output_micro_usd_per_million),
                    str(tier.ready_replicas),
                    plain(route.description) if number == 0 else "",
                )
            table.add_section()
        console().print(table)

    run(work(), address)


def _write(text: str) -> None:
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def _kind_of(event: Event) -> str:
    return type(event).__name__.lower()


def _print_json(kind: str, value: Any) -> None:
    print(json.dumps({"kind": kind, **dataclasses.asdict(value)}, ensure_ascii=False), flush=True)  # noqa: T201
