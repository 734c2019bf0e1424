"""Options that several commands share, and the client they describe."""

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.client import Client

Address = Annotated[
    str,
    typer.Option(help="host:port of the router.", envvar="PENNYWEIGHT_ADDRESS"),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="PEM bundle that signed the service's certificate; given, TLS is spoken.",
        envvar="PENNYWEIGHT_TLS_CA",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
TimeoutSeconds = Annotated[float, typer.Option(help="Seconds until giving up.", min=0.0)]


def connect(address: str, tls_ca: Path | None) -> Client:
    """A client that gives up quickly where nothing answers: a person waits."""
    return Client(address, tls_ca=tls_ca, max_attempts=2)
