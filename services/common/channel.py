"""Channels to our own services: address, TLS, the key they are shown."""

from dataclasses import field
from pathlib import Path

import grpc
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.credentials import read_key

NO_PROXY = ("grpc.enable_http_proxy", 0)
"""Belongs to each channel to our own services and replicas: they are no matter of the proxy that
``http_proxy`` and the like name for the outside."""


@dataclass(frozen=True, config=STRICT)
class Peer:
    """Another service of ours.

    Attributes:
        address: host:port.
        key_file: file with the service key; absent, the development key.
        tls_ca: PEM bundle that signed its certificate; absent, plain text.
    """

    address: str
    key_file: Path | None = None
    tls_ca: Path | None = None
    options: tuple[tuple[str, int], ...] = field(
        default=(
            # A restarted peer should be found again in a second, not in grpc's default minute.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),  # in effect the time to connect
            ("grpc.max_reconnect_backoff_ms", 1000),
            # One that was replaced has another address: grpc would look again after 30 s.
            ("grpc.dns_min_time_between_resolutions_ms", 500),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.max_pings_without_data", 0),  # a stream may be idle for hours
            NO_PROXY,
        )
    )

    def open(self) -> grpc.aio.Channel:
        """Opens a channel; it connects when first used."""
        if self.tls_ca is None:
            return grpc.aio.insecure_channel(self.address, options=self.options)
        credentials = grpc.ssl_channel_credentials(self.tls_ca.read_bytes())
        return grpc.aio.secure_channel(self.address, credentials, options=self.options)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to send with each call."""
        return (("authorization", f"Bearer {read_key(self.key_file)}"),)
