"""``ask`` and ``explain``: what the router is for."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pennyweight.answers import Delta, Event, Finished, Started
from pennyweight.client import Client
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
    console,
    money,
    plain,
    print_decision,
    print_json,
    say,
    summary_line,
)
from pennyweight.questions import Message, Options, Prompt

Question = Annotated[
    str,
    typer.Argument(
        metavar="TEXT",
        help="What to ask; left out or -, it is read from standard input.",
        show_default=False,
    ),
]
Route = Annotated[str, typer.Option(help="Route to ask.", envvar="PENNYWEIGHT_ROUTE")]
System = Annotated[
    str | None, typer.Option(help="What the model is told before the question.", metavar="TEXT")
]
MaxOutputTokens = Annotated[
    int | None, typer.Option(help="Most tokens of the answer.", show_default="the route's")
]
Temperature = Annotated[
    float | None, typer.Option(help="From 0, the likeliest words, to 2.", show_default="0")
]
JsonSchema = Annotated[
    str | None,
    typer.Option(
        help="The answer is JSON of this schema: a file, or the schema itself.", metavar="FILE"
    ),
]
Priority = Annotated[
    str | None,
    typer.Option(
        help="Who waits: background, batch, interactive or critical.", show_default="interactive"
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(help="bypass or refresh the cache.", show_default="as the route says"),
]


def ask(
    text: Question = "",
    *,
    route: Route = "support-chat",
    system: System = None,
    whole: Annotated[bool, typer.Option("--whole", help="Wait for the whole answer.")] = False,
    as_json: Json = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what was decided.")] = False,
    max_output_tokens: MaxOutputTokens = None,
    temperature: Temperature = None,
    json_schema: JsonSchema = None,
    priority: Priority = None,
    cache: Cache = None,
    timeout: TimeoutSeconds = 60.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Ask a question. The answer goes to standard output, the line about it to standard error."""
    prompt = _prompt(text, system)
    options = _options(timeout, max_output_tokens, temperature, json_schema, priority, cache)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with connect(target, route=route) as client:
            if whole:
                await _ask_whole(client, route, prompt, options, as_json=as_json, explain=explain)
            else:
                await _ask_streamed(
                    client, route, prompt, options, as_json=as_json, explain=explain
                )

    run(work(), target)


async def _ask_streamed(
    client: Client, route: str, prompt: Prompt, options: Options, *, as_json: bool, explain: bool
) -> None:
    aside = console(stderr=True)
    async for event in client.generate(route, prompt, **options):
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
    client: Client, route: str, prompt: Prompt, options: Options, *, as_json: bool, explain: bool
) -> None:
    answer = await client.complete(route, prompt, **options)
    if as_json:
        print_json("answer", answer)
        return
    if explain:
        print_decision(console(stderr=True), answer.summary.decision)
    _write(answer.text + "\n")
    _print_summary(answer.summary, explain=explain)


def explain(
    text: Question = "",
    *,
    route: Route = "support-chat",
    system: System = None,
    as_json: Json = False,
    max_output_tokens: MaxOutputTokens = None,
    temperature: Temperature = None,
    json_schema: JsonSchema = None,
    priority: Priority = None,
    cache: Cache = None,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Say what would be decided for a question now, and why. Runs nothing."""
    prompt = _prompt(text, system)
    options = _options(timeout, max_output_tokens, temperature, json_schema, priority, cache)
    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with connect(target, route=route) as client:
            found = await client.explain(route, prompt, **options)
        if as_json:
            print_json("explanation", found)
            return
        screen = console()
        print_decision(screen, found.decision)
        cost = f"{found.prompt_tokens} prompt tokens · at most {money(found.max_micro_usd)}"
        say(screen, cost, "dim")

    run(work(), target)


def _prompt(text: str, system: str | None) -> Prompt:
    """The conversation; ends the command where nothing is asked."""
    if text in ("", "-"):
        text = _standard_input()
    if not text.strip():
        end("Nothing is asked.", "Give the question, or pipe it in.", code=USAGE)
    question = Message("user", text)
    return [question] if system is None else [Message("system", system), question]


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError:
        end("Standard input is not UTF-8 text.", code=USAGE)


def _options(  # noqa: PLR0917 - the options of two commands
    timeout: float,
    max_output_tokens: int | None,
    temperature: float | None,
    json_schema: str | None,
    priority: str | None,
    cache: str | None,
) -> Options:
    """What was wished for; the client checks the words."""
    options: Options = {"timeout_seconds": timeout}
    if max_output_tokens is not None:
        options["max_output_tokens"] = max_output_tokens
    if temperature is not None:
        options["temperature"] = temperature
    if json_schema is not None:
        options["json_schema"] = _schema(json_schema)
    if priority is not None:
        options["priority"] = priority  # type: ignore[typeddict-item]
    if cache is not None:
        options["cache_use"] = cache  # type: ignore[typeddict-item]
    return options


def _schema(given: str) -> str:
    """The schema's text; ends the command where it is none."""
    name = "--json-schema"
    if not given.lstrip().startswith("{"):
        name = f"{name}: {given}"
        try:
            given = Path(given).read_text(encoding="utf-8")
        except OSError as error:
            end(f"{name} cannot be read: {error.strerror}.", code=USAGE)
        except UnicodeDecodeError:
            end(f"{name} is not UTF-8 text.", code=USAGE)
    try:
        json.loads(given)
    except ValueError as error:
        end(f"{name} is no JSON: {error}.", code=USAGE)
    return given


def _print_summary(summary: Finished, *, explain: bool) -> None:
    aside = console(stderr=True)
    say(aside, summary_line(summary))
    if explain:
        say(aside, f"handle {summary.handle}", "dim")


def _write(text: str) -> None:
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def _kind_of(event: Event) -> str:
    return type(event).__name__.lower()
