"""``outcome``: what became of an answer."""

from dataclasses import dataclass
from typing import Annotated

import typer

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
from pennyweight.command.show import console, print_json, say


@dataclass(frozen=True)
class Recorded:
    """The request that an outcome was recorded for, as the ledger names it."""

    request_id: str


def outcome(
    route: Annotated[
        str, typer.Argument(metavar="ROUTE", help="The route that answered.", show_default=False)
    ],
    handle: Annotated[
        str,
        typer.Argument(
            metavar="HANDLE", help="Came with the answer: `ask --explain`.", show_default=False
        ),
    ],
    *,
    resolved: Annotated[
        bool | None,
        typer.Option(
            "--resolved/--unresolved", help="Whether the answer did what it was asked for."
        ),
    ] = None,
    rating: Annotated[
        float | None, typer.Option(help="From -1 (bad) to 1 (good).", min=-1.0, max=1.0)
    ] = None,
    corrected_answer: Annotated[
        str | None, typer.Option(help="The answer it should have been.")
    ] = None,
    corrected_answer_file: Annotated[
        typer.FileText | None,
        typer.Option(help="A file with that answer; - is standard input.", encoding="utf-8"),
    ] = None,
    as_json: Json = False,
    timeout: TimeoutSeconds = 10.0,
    address: Address = "127.0.0.1:50051",
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
) -> None:
    """Say what became of an answer: it is joined to the request when the ledger is read."""
    if corrected_answer_file is not None:
        if corrected_answer is not None:
            end("Give --corrected-answer or --corrected-answer-file, not both.", code=USAGE)
        try:
            corrected_answer = corrected_answer_file.read()
        except UnicodeDecodeError:
            end(f"{corrected_answer_file.name} is not UTF-8 text.", code=USAGE)
    if resolved is None and rating is None and corrected_answer is None:
        end(
            "Nothing is said of the answer.",
            "Give --resolved, --unresolved, --rating or --corrected-answer.",
            code=USAGE,
        )

    target = Target(address, tls_ca, tls_certificate, tls_key)

    async def work() -> None:
        async with connect(target, route=route) as client:
            request_id = await client.record_outcome(
                route,
                handle,
                resolved=resolved,
                rating=rating,
                corrected_answer=corrected_answer,
                timeout_seconds=timeout,
            )
        if as_json:
            print_json("outcome", Recorded(request_id))
            return
        say(console(), f"Recorded for request {request_id}.")

    run(work(), target)
