"""Writes the scaling file, one change at a time, and says whether it came in force.

A change is announced to the versions and written whole; the ordinary watch of the file puts it in
force. Nothing that somebody wrote is overwritten unseen: who finds something else there is told to
look again, and what is overwritten for a reason is kept.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from services.common.config import MAX_BYTES
from services.common.errors import Outrun, ServiceError, Unavailable
from services.common.plain_files import read_plain
from services.scaler.changes.written import read_only, write
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.history.versions import Change, Version, Versions, hash_of

IN_FORCE_SECONDS = 6.0
"""The watch looks every second and takes a change at its second look."""


@dataclass(frozen=True)
class Coming:
    """A change that is written and not in force yet."""

    change: Change
    data: bytes


class Writing:
    """The one place that writes the file.

    Attributes:
        lock: held while the file is written, or while it is decided whether it is.
        coming: the change that somebody waits for; None: there is none.
    """

    def __init__(
        self,
        file: ScalingFile,
        versions: Versions,
        *,
        in_force_seconds: float = IN_FORCE_SECONDS,
    ) -> None:
        """Writes nothing yet. A written file is waited for so many seconds."""
        self.path = file.path
        self.lock = asyncio.Lock()
        self.coming: Coming | None = None
        self._versions = versions
        self._in_force_seconds = in_force_seconds
        self._under_way: set[asyncio.Task[Version | None]] = set()

    @property
    def read_only(self) -> str:
        """Why the file cannot be changed here, in one sentence; empty: it seems that it can."""
        return read_only(self.path)

    async def on_disk(self) -> str:
        """Hash of what the file holds; empty: it cannot be read."""
        with suppress(OSError):
            return hash_of(await asyncio.to_thread(read_plain, self.path, MAX_BYTES))
        return ""

    async def refuse_unseen(self, before: Version, *, anyway: bool) -> bool:
        """Whether somebody wrote what nobody has seen in force.

        Raises:
            Outrun: so it is, and it is not to be written over anyway.
        """
        unseen = await self.on_disk() not in ("", before.hash)
        if unseen and not anyway:
            raise Outrun(
                f"{self.path} holds a change of somebody else that is not in force; look at "
                "it first, or give a reason to write over it",
                reason="POLICY_CHANGED",
            )
        return unseen

    async def write(
        self, data: bytes, before: Version, change: Change, *, anyway: bool
    ) -> Version | None:
        """Writes a file and waits for it, to the end, whoever hangs up: its version belongs to it.

        Args:
            data: the file.
            before: the version that the change began with.
            change: who puts it there, and why.
            anyway: over a change of somebody else that is not in force; that one is kept.

        Returns:
            the version; None: it is written, and not in force yet.

        Raises:
            NotNow: the file is read-only.
            Outrun: somebody else changed it, before or after it was written.
            Unavailable: the disk refuses.
        """
        task = asyncio.create_task(self._write(data, before, change, anyway=anyway))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def replace(self, data: bytes, expected: str | None) -> bytes:
        """Puts the data in the place of the file of this hash; see `written.write`. Within `lock`.

        Returns:
            What was there; it is kept.
        """
        hashes = None if expected is None else (expected,)
        return await asyncio.to_thread(write, self.path, data, hashes, self._keep)

    def _keep(self, content: bytes) -> None:
        try:
            self._versions.keep(content)
        except OSError as error:
            message = f"what is there cannot be kept: {error.strerror}; nothing is changed"
            raise Unavailable(message, reason="HISTORY_UNWRITTEN") from error

    async def _write(
        self, data: bytes, before: Version, change: Change, *, anyway: bool
    ) -> Version | None:
        async with self.lock:
            if self._versions.in_force_now() != before:
                raise Outrun("the scaling file was changed meanwhile", reason="POLICY_CHANGED")
            await self.refuse_unseen(before, anyway=anyway)
            try:
                await asyncio.to_thread(self._versions.announce, change)
            except OSError as error:
                message = f"the change cannot be kept: {error.strerror}; nothing is changed"
                raise Unavailable(message, reason="HISTORY_UNWRITTEN") from error
            try:
                found = await self.replace(data, None if anyway else before.hash)
            except ServiceError:
                self._versions.withdraw(change)
                raise
            coming = self.coming = Coming(change, data)
            if found and hash_of(found) not in (before.hash, change.hash):
                self._versions.undone(found, f"written over by {change.author}")
        try:
            return await self._in_force(change, before)
        finally:
            if self.coming is coming:
                self.coming = None

    async def _in_force(self, change: Change, before: Version) -> Version | None:
        """The version that the change became; None: not yet, but it is still there.

        Raises:
            Outrun: somebody else wrote over it meanwhile.
        """
        time = asyncio.get_running_loop().time
        until = time() + self._in_force_seconds
        while True:
            left = max(0.0, until - time())
            version = await self._versions.until_in_force(change.hash, left, before)
            if version is not None:
                return version
            async with self.lock:  # an edit that is being undone then is
                if await self.on_disk() != change.hash:
                    self._versions.withdraw(change)
                    raise Outrun(
                        "somebody else wrote over this change before it was in force; look at "
                        "the file first",
                        reason="POLICY_CHANGED",
                    )
            if time() >= until:
                return None
            before = self._versions.in_force_now()
