"""Channels to our own services: address, TLS, the key they are shown.

Who keeps up a stream makes a new connection for each try. The peer's name is then looked up anew:
one that was replaced has another address, and a channel asks for it again after 30 s at the
earliest, or after minutes where there was none. And the key is read anew, as it may have changed.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path

import grpc
from pydantic.dataclasses import dataclass

from services.common.config import STRICT, ConfigError
from services.common.credentials import read_key
from services.common.plain_files import MAX_SECRET_BYTES, read_plain

NO_PROXY = ("grpc.enable_http_proxy", 0)
"""Belongs to each channel to our own services and replicas: they are no matter of the proxy that
``http_proxy`` and the like name for the outside."""

AWAY = (grpc.aio.AioRpcError, TimeoutError, OSError, ConfigError, asyncio.CancelledError)
"""What a stream ends with whose peer is away, refuses it, or cannot be called with the files that
are there now. `CancelledError` is among them where the call alone was cancelled: ask
`services.common.calls.is_cancelled`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """A connected channel, and what to send with each of its calls."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]


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
        """Opens a channel; it connects when first used.

        Raises:
            OSError: the authority cannot be read.
        """
        return self._open(self._authority())

    async def opened(self) -> grpc.aio.Channel:
        """As `open`, with the authority read in a thread."""
        return self._open(await asyncio.to_thread(self._authority))

    def _open(self, authority: bytes | None) -> grpc.aio.Channel:
        if authority is None:
            return grpc.aio.insecure_channel(self.address, options=self.options)
        credentials = grpc.ssl_channel_credentials(authority)
        return grpc.aio.secure_channel(self.address, credentials, options=self.options)

    def check(self) -> None:
        """Looks whether the files can be used, for a start that shall fail where they cannot.

        Raises:
            ConfigError: one cannot.
        """
        read_key(self.key_file)
        try:
            self._authority()
        except OSError as error:
            raise ConfigError(str(self.tls_ca), [f"it cannot be read: {error}"]) from error

    @asynccontextmanager
    async def connected(self, seconds: float) -> AsyncIterator[Connection]:
        """A connection of its own, with the key and the authority that the files hold now.

        Raises:
            TimeoutError: nobody answers within so many seconds.
            OSError: the authority cannot be read.
            ConfigError: the key cannot be used.
        """
        key = await asyncio.to_thread(read_key, self.key_file)
        async with await self.opened() as channel:
            async with asyncio.timeout(seconds):
                await channel.channel_ready()
            yield Connection(channel, (("authorization", f"Bearer {key}"),))

    def _authority(self) -> bytes | None:
        return None if self.tls_ca is None else read_plain(self.tls_ca, MAX_SECRET_BYTES)


def named(error: BaseException) -> str:
    """What kept a stream from going on, for a log."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return str(error) or "silent"
