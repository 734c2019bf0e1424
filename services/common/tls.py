"""TLS of a server: its files are checked at the start, and taken up again when they change.

gRPC says nothing of files it cannot use, so Python's own TLS reads them first.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.common.config import ConfigError
from services.common.plain_files import read_plain

log = structlog.get_logger()

MAX_BYTES = 2**20

LOOK_SECONDS = 5.0

WHOLE_SECONDS = 1.0
"""A file that changed less long ago may still be written: a chain ends well after each of its
certificates."""


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of a server.

    Attributes:
        certificate: its chain.
        key: to the certificate.
        client_authority: set, callers must show a certificate that it signed.
    """

    certificate: Path
    key: Path
    client_authority: Path | None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: each new connection gets what is in them then.

        Raises:
            ConfigError: a file cannot be used.
        """
        watch = _Watch(self)
        return grpc.dynamic_ssl_server_credentials(
            watch.configuration(),
            watch.changed,
            require_client_authentication=self.client_authority is not None,
        )

    def read(self) -> tuple[bytes, ...]:
        """What is in them now.

        Raises:
            OSError: one cannot be read, or is no plain file.
        """
        files = (self.certificate, self.key, self.client_authority)
        return tuple(read_plain(path, MAX_BYTES) if path is not None else b"" for path in files)

    def changed_at(self) -> float:
        """When one of them changed last, in seconds since 1970.

        Raises:
            OSError: one is gone.
        """
        files = (self.certificate, self.key, self.client_authority)
        return max(path.stat().st_mtime for path in files if path is not None)

    def check(self) -> None:
        """Checks that they go together.

        Raises:
            ConfigError: a file cannot be used.
        """
        context, path = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.certificate
        try:
            # Without a password OpenSSL would ask the terminal for one, and wait.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
            if self.client_authority is not None:
                path = self.client_authority
                context.load_verify_locations(self.client_authority)
        except OSError as error:
            raise ConfigError(str(path), [f"TLS cannot use it: {error}"]) from error


class _Watch:
    """What connections get; gRPC asks for it in a thread of its own, one connection at a time."""

    def __init__(self, files: TlsFiles, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        try:
            self._content = files.read()
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(str(error.filename), [f"TLS cannot use it: {why}"]) from error
        files.check()
        self._files = files
        self._refused = ""

    def configuration(self) -> Any:
        chain, key, authority = self._content
        return grpc.ssl_server_certificate_configuration([(key, chain)], authority or None)

    def changed(self) -> Any:
        """The new configuration; None where nothing has changed, or what is there is wrong."""
        try:
            content = self._files.read()
            if content == self._content:
                self._refused = ""
                return None
            if 0.0 <= self._wall() - self._files.changed_at() < WHOLE_SECONDS:
                return None  # who connects next looks again
            self._files.check()
        except (OSError, ConfigError) as error:
            if str(error) != self._refused:  # not once for each connection
                log.error("the TLS files are refused, those of before stay", error=str(error))  # noqa: TRY400
            self._refused = str(error)
            return None
        self._refused = ""
        self._content = content
        log.info("new TLS files are in force")
        return self.configuration()


class TlsRefusals:
    """Looks whether the files on disk could be put in force, though nobody connects."""

    def __init__(self, files: TlsFiles | None, registry: CollectorRegistry) -> None:
        """`files`: None, the server speaks plain text."""
        self._files = files
        self._why = self._waiting = ""
        self._refused = Gauge(
            "pennyweight_tls_refused",
            "1 while the TLS files on disk are wrong or cannot be read, and those of before stay in"
            " force; a service that starts anew then does not start.",
            registry=registry,
        )
        self._refusals = Counter(
            "pennyweight_tls_refusals", "TLS files found wrong.", registry=registry
        )

    async def run(self) -> None:
        """Looks for ever."""
        while self._files is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:  # such as no thread to read them in; the next look may find one
                log.exception("the TLS files could not be looked at")

    async def look(self) -> None:
        """Looks once; what is wrong counts if the look before found the same."""
        if self._files is None:
            return
        why = await asyncio.to_thread(_fault_of, self._files)
        waiting, self._waiting = self._waiting, why
        if why != waiting:
            return  # they may be half written
        if why and why != self._why:
            self._refusals.inc()
            log.error("the TLS files on disk cannot be used", error=why)
        self._why = why
        self._refused.set(bool(why))


def _fault_of(files: TlsFiles) -> str:
    """What is wrong with them; empty: nothing."""
    try:
        files.read()
        files.check()
    except (OSError, ConfigError) as error:
        return str(error)
    return ""
