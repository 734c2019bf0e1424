"""Options that several commands share, and the client they describe."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pennyweight.client import Client
from pennyweight.errors import NotFound, PennyweightError
from pennyweight.suggestions import hint_of

Address = Annotated[
    str,
    typer.Option(help="host:port of the router.", envvar="PENNYWEIGHT_ADDRESS"),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="PEM bundle that signed the service's certificate; given, TLS is spoken.",
        envvar="PENNYWEIGHT_TLS_CA",
        metavar="FILE",
    ),
]
TlsCertificate = Annotated[
    Path | None,
    typer.Option(
        help="PEM chain to show to a service that asks callers for one; needs --tls-key.",
        envvar="PENNYWEIGHT_TLS_CERTIFICATE",
        metavar="FILE",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        help="PEM key of --tls-certificate.", envvar="PENNYWEIGHT_TLS_KEY", metavar="FILE"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
TimeoutSeconds = Annotated[
    float, typer.Option(help="Seconds until giving up.", min=0.0, metavar="SECONDS")
]


@dataclass(frozen=True)
class Target:
    """A service and how it is spoken to.

    Attributes:
        address: host:port, or any gRPC target.
        tls_ca: PEM bundle that signed its certificate.
        tls_certificate: PEM chain to show to it.
        tls_key: PEM key of that chain.
    """

    address: str
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls_ca is not None or self.tls_certificate is not None


@asynccontextmanager
async def connect(target: Target, *, route: str = "", lever: str = "") -> AsyncIterator[Client]:
    """A client that gives up quickly where nothing answers: a person waits.

    What is not found under the name of `route` or `lever` carries a note with the names there are.
    """
    async with Client(
        target.address,
        tls_ca=target.tls_ca,
        tls_certificate=target.tls_certificate,
        tls_key=target.tls_key,
        max_attempts=2,
    ) as client:
        try:
            yield client
        except NotFound as error:
            try:
                if error.reason == "ROUTE_UNKNOWN":
                    names = [one.name for one in (await client.list_routes()).routes]
                    error.add_note(hint_of(route, names, "Your key may use"))
                elif error.reason == "LEVER_UNKNOWN":
                    names = [one.name for one in (await client.levers(route)).levers]
                    error.add_note(hint_of(lever, names, f"{route} has"))
            except PennyweightError:
                pass  # the first error is the one to tell
            raise
