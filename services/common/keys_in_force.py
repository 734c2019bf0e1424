"""The accepted keys while a service runs: the key file is read again when it changes.

A key that is added works, and one that is taken out stops to work, within seconds; calls that are
under way go on. A change is taken once two looks in a row have found the same, so that no file is
taken that is only half written. One that is wrong is refused whole: the keys of before stay. So
they do while it cannot be read, which is tried again at each look.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.common.config import MAX_BYTES, ConfigError
from services.common.credentials import Identity, Keyring
from services.common.plain_files import read_plain

log = structlog.get_logger()

LOOK_SECONDS = 1.0


class KeysInForce:
    """The keyring in force."""

    def __init__(self, path: Path | None, registry: CollectorRegistry) -> None:
        """Reads the keys.

        Raises:
            ConfigError: the file is wrong.
        """
        self._path = path
        self._unread = False
        self._seen = self._waiting = b""
        if path is not None:
            with suppress(OSError):  # which `Keyring.load` explains
                self._seen = _digest_of(path)  # first: what changes while it is read is read again
        self._keyring = Keyring.load(path)
        self._refused = Gauge(
            "pennyweight_keys_refused",
            "1 while the key file on disk is refused or cannot be read, and the keys of before stay"
            " in force.",
            registry=registry,
        )

    def identify(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Identity:
        """See `Keyring.identify`."""
        return self._keyring.identify(metadata)

    async def run(self) -> None:
        """Takes up changes of the file, for ever."""
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:  # such as no thread to read it in; the next look may find one
                log.exception("the key file could not be looked at")

    async def look(self) -> None:
        """Takes up the file if it has changed, or can be read again."""
        if self._path is None:
            return
        try:
            seen = await asyncio.to_thread(_digest_of, self._path)
        except OSError as error:
            self._cannot_read(error)
            return
        waiting, self._waiting = self._waiting, seen
        if seen != waiting or (seen == self._seen and not self._unread):
            return
        try:
            keyring = await asyncio.to_thread(Keyring.load, self._path)
        except ConfigError as error:
            if isinstance(error.__cause__, OSError):
                self._cannot_read(error.__cause__)
                return
            self._seen, self._unread = seen, False
            self._refused.set(1)
            log.error("the key file is refused, the keys of before stay", error=str(error))  # noqa: TRY400
            return
        self._seen, self._unread = seen, False
        self._refused.set(0)
        before, after = set(self._keyring.by_digest), set(keyring.by_digest)
        self._keyring = keyring
        log.info("keys are in force", added=len(after - before), removed=len(before - after))

    def _cannot_read(self, error: OSError) -> None:
        """Says once that the file cannot be read, and why."""
        if not self._unread:
            log.error("the key file cannot be read, the keys of before stay", error=str(error))
        self._unread = True
        self._refused.set(1)


def _digest_of(path: Path) -> bytes:
    """Of the file's content.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(read_plain(path, MAX_BYTES)).digest()
