"""Undoes edits of the scaling file by hand, where the policy in force says so.

An edit is undone once it has stood still for a while, so that nobody is interrupted who still
writes, and only where it can be kept: nothing that a hand wrote is lost. The hand wins where it
insists, and where nothing can be kept or written.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from services.common.config import ConfigError, parse_document
from services.common.errors import Outrun, ServiceError
from services.scaler.changes.writing import Writing
from services.scaler.config import Edits, Scaling
from services.scaler.history.versions import Change, Source, Versions, hash_of

log = structlog.get_logger()

AGAIN_SECONDS = 60.0
"""Who edits the file again so soon after an edit was undone means it."""

STILL_SECONDS = 3.0
"""How long an edit stands still before it is undone: who writes in several pieces is done then."""

LOOK_SECONDS = 0.25


class HandEdits:
    """What becomes of edits by hand."""

    def __init__(
        self,
        writing: Writing,
        versions: Versions,
        *,
        still_seconds: float = STILL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Undoes nothing yet.

        Args:
            writing: writes the file back.
            versions: keep what is undone.
            still_seconds: how long an edit must stand still.
            clock: gives monotonic seconds.
        """
        self._writing = writing
        self._versions = versions
        self._still_seconds = still_seconds
        self._clock = clock
        self._undone_at: float | None = None
        self._outrun = ""  # hash of the edit that was being written when it was last to be undone

    async def undo(self, content: bytes) -> bool:
        """Writes the file in force, or a change that is about to be, back over an edit by hand.

        Once: an edit within a minute after the last one was undone is respected. So is one that
        cannot be undone, or kept. The edit is kept as a version that can be applied.

        Args:
            content: what the file was read to hold.

        Returns:
            whether it is not to come in force: it was undone, or is another one by now.
        """
        if self._versions.expects(content) or await self._edits() is not Edits.UNDONE:
            return False
        async with self._writing.lock:
            if not await self._stands_still(hash_of(content)):
                return True
            if self._versions.expects(content):
                return False
            if why := self._respected():
                await self._respect(content, why)
                return False
            return await self._write_back(content)

    async def _edits(self) -> Edits:
        """What the policy in force says of edits; where it cannot be read they are respected."""
        with suppress(ServiceError, OSError, UnicodeDecodeError, ConfigError):
            text = (await self._versions.live()).decode()
            return parse_document(text, Scaling, source=str(self._writing.path)).content.edits
        return Edits.RESPECTED

    async def _stands_still(self, digest: str) -> bool:
        left = self._still_seconds
        while await self._writing.on_disk() == digest:
            if left <= 0:
                return True
            await asyncio.sleep(min(left, LOOK_SECONDS))
            left -= LOOK_SECONDS
        return False

    def _respected(self) -> str:
        """Why an edit is respected though edits are to be undone; empty: it is not."""
        at = self._undone_at
        if at is not None and self._clock() - at < AGAIN_SECONDS:
            return "edited again within a minute after an edit was undone"
        return self._writing.read_only

    async def _respect(self, content: bytes, why: str) -> None:
        log.warning(
            "an edit of the scaling file is respected", why=why, file=str(self._writing.path)
        )
        change = Change(hash_of(content), Source.FILE, "", f"respected: {why}")
        try:
            await asyncio.to_thread(self._versions.announce, change)
        except OSError:
            self._versions.note(change)

    async def _write_back(self, content: bytes) -> bool:
        """Writes back what is to be in force; the edit is kept first."""
        coming, before = self._writing.coming, self._versions.in_force_now()
        try:
            data = await self._versions.live() if coming is None else coming.data
            await self._writing.replace(data, hash_of(content))
        except Outrun as error:
            if self._outrun != hash_of(content):
                self._outrun = hash_of(content)
                return True  # it is another one this very moment: the next look finds it
            await self._respect(content, f"it cannot be undone: {error}")  # as nothing changes
            return False
        except (OSError, ServiceError) as error:
            await self._respect(content, f"it cannot be undone: {error}")
            return False
        back = f"version {before.number}"
        if coming is not None:
            back = f"what {coming.change.author} is putting in force"
        undone = self._versions.undone(content, f"undone, back to {back}")
        self._undone_at = self._clock()
        log.warning(
            "an edit of the scaling file is undone",
            file=str(self._writing.path),
            version=undone.number,
            back_to=back,
        )
        return True
