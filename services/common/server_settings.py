"""What can be set of every service's server, and the addresses that it may listen on."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.tls import TlsFiles

LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")

_PORT = re.compile(
    r":(0|[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])$", re.ASCII
)
"""gRPC takes a greater one for what is left of it after a division."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServerSettings:
    """Settings of every service; each adds its own fields.

    Attributes:
        listen: host:port of the gRPC server; port 0 takes a free one.
        metrics_listen: host:port of ``/metrics``.
        keys_file: hashed API keys, read again when it changes; absent, the development key works
            and listen must be loopback.
        tls_certificate: PEM chain; absent, the server speaks plain text. The three files of TLS
            are read again when they change, for connections that are made from then on.
        tls_key: PEM key to the certificate.
        tls_client_ca: PEM bundle; set, callers must show a certificate signed by it.
        max_message_bytes: largest message taken.
        max_connections: connections at once, and at most half of the process's descriptors; more
            are closed at once.
        max_connection_age_seconds: connections are asked to reconnect after this, so that
            balancers can rebalance.
        drain_seconds: how long running calls may finish after SIGTERM.
        log_level: the least level logged.
        otlp_endpoint: OTLP/gRPC collector for traces; empty, no traces.
    """

    listen: str = "127.0.0.1:0"
    metrics_listen: str = "127.0.0.1:0"
    keys_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    max_message_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    max_connections: Annotated[int, Field(ge=1)] = 4096
    max_connection_age_seconds: Annotated[float, Field(ge=1)] = 1800.0
    drain_seconds: Annotated[float, Field(ge=0)] = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str = ""

    def __post_init__(self) -> None:
        """Refuses combinations that would be unsafe or cannot work."""
        check_listen("metrics_listen", self.metrics_listen, keys=True)
        check_listen("listen", self.listen, keys=self.keys_file is not None)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")

    @property
    def tls_files(self) -> TlsFiles | None:
        """The PEM files; None: plain text."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)


def check_listen(name: str, address: str, *, keys: bool) -> None:
    """Refuses an address that cannot be listened on, or that is open to all without keys.

    Raises:
        ValueError: it is one; `name` is that of the setting.
    """
    if not address.startswith("unix:") and not _PORT.search(address):
        raise ValueError(f"{name}: must end in a port from 0 to 65535, got {address!r}")
    if not keys and not address.startswith(LOOPBACK):
        raise ValueError(f"{name}: {address} is not loopback, so keys_file must be set")
