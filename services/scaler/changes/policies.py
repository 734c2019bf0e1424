"""Puts scaling files in force and takes them back.

A file is checked, tried beside the one in force on the recorded load, refused where it does worse
or nobody can say, and written. Of two who change it at once the second is told to look again.
"""

import asyncio
from dataclasses import replace

from services.common.config import ConfigError
from services.common.errors import NotFound, NotNow, Outrun
from services.scaler.changes.asked import Applied, Asked
from services.scaler.changes.trying import Trying
from services.scaler.changes.writing import Writing
from services.scaler.config import Notes
from services.scaler.history.versions import Change, Source, Version, Versions, hash_of


class Policies:
    """Changes of one scaling file."""

    def __init__(self, versions: Versions, trying: Trying, writing: Writing) -> None:
        """Changes nothing yet.

        Args:
            versions: what was in force.
            trying: checks and tries files.
            writing: writes them.
        """
        self._versions = versions
        self._trying = trying
        self._writing = writing

    @property
    def read_only(self) -> str:
        """Why the file cannot be changed here, in one sentence; empty: it seems that it can."""
        return self._writing.read_only

    async def check(self, content: str, *, caller: str = "") -> Notes:
        """Checks a file; returns what is to be said of it though it would be taken.

        Args:
            content: its text.
            caller: whose turn it takes.

        Raises:
            ConfigError: it would be refused.
            ServiceError: it cannot be checked; see `Trials.run`.
        """
        live = (await self._versions.live()).decode()
        return (await self._trying.check(content, caller=caller, live=live)).notes

    async def apply(self, content: str, asked: Asked) -> Applied:
        """Puts a file in force.

        Raises:
            BadRequest: it would be refused.
            NotNow: it does worse than the one in force, nobody can say though enough is on record,
                a tier would be left without a pool, or the file is read-only.
            Outrun: somebody else changed it.
            Unavailable: the disk refuses it.
            ServiceError: it cannot be tried; see `Trials.run`.
        """
        data = content.encode()
        before, digest = self._versions.in_force_now(), hash_of(data)
        if asked.based_on and asked.based_on != before.hash:
            raise Outrun(
                f"version {before.number} is in force, and this change began with another one",
                reason="POLICY_CHANGED",
            )
        if digest == before.hash and await self._writing.on_disk() == digest:
            return Applied(digest, before)
        if why := self.read_only:
            raise NotNow(why, reason="POLICY_READ_ONLY")
        left = (await self._trying.checked(content, asked.caller)).unserved
        if left and not asked.anyway:
            raise NotNow(left, reason="TIER_UNSERVED")
        unseen = await self._writing.refuse_unseen(before, anyway=bool(asked.anyway))
        plan = await self._trying.gate(content, asked)
        needed = unseen or left or plan is None or plan.reason_needed
        anyway = asked.anyway if needed else ""
        change = Change(digest, Source.APPLY, asked.author, asked.note, anyway)
        if plan is not None:
            change = replace(change, verdict=plan.verdict.value, because=plan.because)
        version = await self._writing.write(data, before, change, anyway=bool(asked.anyway))
        return Applied(digest, version, plan)

    async def roll_back(self, number: int, author: str, note: str, *, caller: str = "") -> Applied:
        """Puts the file of an earlier version in force; 0: of the one before.

        It is not tried on recorded load: what takes a mistake back must be quick, and was in force.
        One that was never in force by hand may name no places that the file in force does not.

        Raises:
            NotFound: there is no such version.
            NotNow: it is in force, would be refused now, or the file is read-only.
            Outrun: somebody else changed it.
            Unavailable: its file cannot be read, or the disk refuses it.
        """
        before = self._versions.in_force_now()
        target = self._versions.find(number) if number else self._versions.before(before.number)
        if target is None:
            named = f"version {number}" if number else f"a version before {before.number}"
            raise NotFound(f"{named} is not on record", reason="VERSION_UNKNOWN")
        if target.hash == before.hash:
            message = f"the file of version {target.number} is in force already"
            raise NotNow(message, reason="POLICY_IN_FORCE")
        try:
            data = await asyncio.to_thread(self._versions.content, target)
        except OSError as error:
            message = f"the file of version {target.number} cannot be read: {error}"
            raise NotNow(message, reason="VERSION_LOST") from error
        try:
            live = (
                None if self._versions.by_hand(target) else (await self._versions.live()).decode()
            )
            await self._trying.check(data.decode(), caller=caller, live=live, urgent=True)
        except (ConfigError, UnicodeDecodeError) as error:
            why = error.problems[0] if isinstance(error, ConfigError) else error
            message = f"version {target.number} would be refused now: {why}"
            raise NotNow(message, reason="POLICY_REFUSED") from error
        note = note or f"back to version {target.number}"
        change = Change(target.hash, Source.ROLLBACK, author, note, rolled_back_to=target.number)
        # A change that is not in force is what is taken back, if anything is.
        version = await self._writing.write(data, before, change, anyway=True)
        return Applied(target.hash, version)

    async def content(self, version: Version) -> str:
        """The whole file of a version.

        Raises:
            NotNow: it cannot be read.
        """
        try:
            return (await asyncio.to_thread(self._versions.content, version)).decode()
        except (OSError, UnicodeDecodeError) as error:
            message = f"the file of version {version.number} cannot be read: {error}"
            raise NotNow(message, reason="VERSION_LOST") from error
