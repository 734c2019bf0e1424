"""The accepted keys while a service runs: the key file is read again when it changes.

A key that is added works, and one that is taken out stops to work, within seconds; calls that are
under way go on. A file that is wrong is refused whole: the keys of before stay.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.common.config import ConfigError
from services.common.credentials import Identity, Keyring

log = structlog.get_logger()

LOOK_SECONDS = 2.0


class KeysInForce:
    """The keyring in force."""

    def __init__(self, path: Path | None, registry: CollectorRegistry) -> None:
        """Reads the keys.

        Raises:
            ConfigError: the file is wrong.
        """
        self._path = path
        self._seen = _digest_of(path)  # first: what changes while it is read is read again
        self._keyring = Keyring.load(path)
        self._refused = Gauge(
            "pennyweight_keys_refused",
            "1 while the key file on disk is refused and the keys of before stay in force.",
            registry=registry,
        )

    def identify(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Identity:
        """See `Keyring.identify`."""
        return self._keyring.identify(metadata)

    async def run(self) -> None:
        """Takes up changes of the file, for ever."""
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Takes up the file if it has changed."""
        seen = await asyncio.to_thread(_digest_of, self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            keyring = await asyncio.to_thread(Keyring.load, self._path)
        except ConfigError as error:
            self._refused.set(1)
            log.error("the key file is refused, the keys of before stay", error=str(error))  # noqa: TRY400
            return
        self._refused.set(0)
        before, after = set(self._keyring.by_digest), set(keyring.by_digest)
        self._keyring = keyring
        log.info("keys are in force", added=len(after - before), removed=len(before - after))


def _digest_of(path: Path | None) -> bytes:
    """Of the file's content; empty where it cannot be read, which `Keyring.load` explains."""
    try:
        return b"" if path is None else hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
