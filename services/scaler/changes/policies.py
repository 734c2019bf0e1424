"""Plans, applies and takes back scaling files, and undoes edits where the policy says so.

A file is checked, tried beside the one in force on the recorded load, refused where it does worse
or nobody can say, announced to the versions and written whole; the ordinary watch of the file puts
it in force. Of two who change it at once the second is told to look again: nothing that somebody
wrote is overwritten unseen, and what is undone is kept. What callers send is read in a process of
its own, never here.
"""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
from pydantic import TypeAdapter

from services.common.config import MAX_BYTES, ConfigError, parse_document
from services.common.errors import (
    BadRequest,
    NotFound,
    NotNow,
    Outrun,
    ServiceError,
    Unavailable,
    Violation,
)
from services.common.plain_files import read_plain
from services.scaler.changes.trials import Trials
from services.scaler.changes.written import read_only, write
from services.scaler.config import Edits, Notes, Scaling
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.history.versions import Change, Source, Version, Versions, hash_of
from services.scaler.policy.plans import Plan, Scene, Simulation, Verdict

log = structlog.get_logger()

LOAD_FOLDER, DECISIONS_FOLDER = "load", "decisions"
"""What trials read of the history."""

DAY_SECONDS = 86_400.0
IN_FORCE_SECONDS = 6.0
"""The watch looks every second and takes a change at its second look."""

AGAIN_SECONDS = 60.0
"""Who edits the file again so soon after an edit was undone means it."""

PLAN_HOLDS_SECONDS = 300.0
"""The recorded load of days is much the same so long."""


@dataclass(frozen=True)
class Checked:
    """What is to be said of a file that would be taken.

    Attributes:
        notes: of its pools.
        unserved: tiers that the file in force serves and it would not; empty: none.
    """

    notes: Notes
    unserved: str


@dataclass(frozen=True)
class Asked:
    """Who changes what, and why.

    Attributes:
        author: who asks for it.
        note: what it is for.
        anyway: why it is to come in force though it does worse, leaves a tier without a pool, or
            over a change of somebody else that is not in force; empty: it is not.
        based_on: hash of the file that the change began with; empty: whatever is in force.
        span_seconds: how much of the recorded load is tried.
        tenant: whose turn it takes.
    """

    author: str
    note: str
    anyway: str = ""
    based_on: str = ""
    span_seconds: float = 7 * DAY_SECONDS
    tenant: str = ""


@dataclass(frozen=True)
class Applied:
    """What came of a change.

    Attributes:
        hash: of the file.
        version: once it is in force; None: it is written, and comes in force soon.
        plan: what was found on the recorded load; None: it was not tried.
    """

    hash: str
    version: Version | None
    plan: Plan | None = None


@dataclass(frozen=True)
class _Planned:
    """A plan that was just made: who looks at it and then applies the file need not wait again."""

    key: tuple[str, str, float, str]
    until: float
    plan: Plan
    page: bool

    def holds(self, key: tuple[str, str, float, str], now: float, *, page: bool) -> bool:
        return key == self.key and now < self.until and (self.page or not page)


class Policies:
    """Changes of one scaling file."""

    def __init__(
        self,
        file: ScalingFile,
        versions: Versions,
        trials: Trials,
        folder: Path,
        *,
        checks: Trials,
        places_allowed: Collection[str] = (),
        replicas: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        in_force_seconds: float = IN_FORCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Changes nothing yet.

        Args:
            file: checks as the watched one does.
            versions: what was in force.
            trials: where files are tried.
            folder: of the history, with the recorded load and the decisions.
            checks: where files are checked alone, which takes no turn of a trial.
            places_allowed: places that files may name though the one in force does not.
            replicas: what was measured of each pool's replicas: `capacity`, the four constants or
                None, `correction` of them, `start_seconds`, and `start_spread`, the standard
                deviation of their logarithm.
            in_force_seconds: how long a written file is waited for.
            clock: gives monotonic seconds.
            wall: gives seconds since 1970.
        """
        self._file = file
        self._versions = versions
        self._trials = trials
        self._checks = checks
        self._places_allowed = sorted(places_allowed)
        self._folder = folder
        self._in_force_seconds = in_force_seconds
        self._replicas = replicas
        self._clock = clock
        self._wall = wall
        self._planned: _Planned | None = None
        self._undone_at: float | None = None
        self._writing = asyncio.Lock()
        self._under_way: set[asyncio.Task[Version | None]] = set()

    @property
    def read_only(self) -> str:
        """Why the file cannot be changed here, in one sentence; empty: it seems that it can."""
        return read_only(self._file.path)

    async def check(self, content: str, *, tenant: str = "") -> Notes:
        """Checks a file; returns what is to be said of it though it would be taken.

        Args:
            content: its text.
            tenant: takes the turn.

        Raises:
            ConfigError: it would be refused.
            ServiceError: it cannot be checked; see `Trials.run`.
        """
        return (await self._check(content, tenant, (await self._live()).decode())).notes

    async def plan(
        self,
        content: str,
        span_seconds: float,
        progress: Callable[[float], None],
        *,
        asked: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        page: bool = False,
        tenant: str = "",
    ) -> Plan:
        """What a file would have decided beside the one in force.

        Args:
            content: the file.
            span_seconds: how much of the recorded load is tried.
            progress: hears how far it is.
            asked: what replicas are to be taken to be, by pool, as `replicas` tells it.
            page: with a page.
            tenant: takes the turn.

        Raises:
            BadRequest: it would be refused.
            ServiceError: it cannot be tried; see `Trials.run`.
        """
        live, in_force = await self._live(), self._in_force()
        assumed = json.dumps(dict(asked), sort_keys=True)
        key = (hash_of(content.encode()), hash_of(live), span_seconds, assumed)
        if self._planned is not None and self._planned.holds(key, self._clock(), page=page):
            plan = self._planned.plan
            await self._checked(content, tenant)  # the folders that it names may have changed
            return plan if page else replace(plan, page="")
        question = {
            "kind": "plan",
            "check": self._surroundings(live.decode()),
            "path": str(self._file.path),
            "live": live.decode(),
            "given": content,
            "load": str(self._folder / LOAD_FOLDER),
            "decisions": str(self._folder / DECISIONS_FOLDER),
            "in_force_since": in_force.since,
            "seconds": span_seconds,
            "now": self._wall(),
            "replicas": self._replicas(),
            "asked": dict(asked),
            "page": page,
        }
        try:
            answer = await self._trials.run(question, progress, tenant=tenant)
        except ConfigError as error:
            raise _refused(error) from error
        plan = TypeAdapter(Plan).validate_python(answer)
        self._planned = _Planned(key, self._clock() + PLAN_HOLDS_SECONDS, plan, page)
        return plan

    async def simulate(
        self,
        content: str,
        scene: Scene,
        progress: Callable[[float], None],
        *,
        tenant: str = "",
    ) -> Simulation:
        """What a file, empty: the one in force, would have done with a trace.

        Raises:
            BadRequest: it would be refused.
            ServiceError: it cannot be tried; see `Trials.run`.
        """
        live = (await self._live()).decode()
        question = {
            "kind": "simulate",
            "check": self._surroundings(live) if content else None,
            "path": str(self._file.path),
            "given": content or live,
            "scene": dataclasses.asdict(scene),
            "load": str(self._folder / LOAD_FOLDER),
            "replicas": self._replicas(),
        }
        try:
            answer = await self._trials.run(question, progress, tenant=tenant)
        except ConfigError as error:
            raise _refused(error) from error
        return TypeAdapter(Simulation).validate_python(answer)

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
        before, digest = self._in_force(), hash_of(data)
        if asked.based_on and asked.based_on != before.hash:
            raise Outrun(
                f"version {before.number} is in force, and this change began with another one",
                reason="POLICY_CHANGED",
            )
        if digest == before.hash and await self._on_disk() == digest:
            return Applied(digest, before)
        if why := self.read_only:
            raise NotNow(why, reason="POLICY_READ_ONLY")
        left = (await self._checked(content, asked.tenant)).unserved
        if left and not asked.anyway:
            raise NotNow(left, reason="TIER_UNSERVED")
        unseen = await self._refuse_unseen(before, anyway=bool(asked.anyway))
        plan = await self._gate(content, asked)
        needed = unseen or left or plan is None or plan.reason_needed
        anyway = asked.anyway if needed else ""
        change = Change(digest, Source.APPLY, asked.author, asked.note, anyway)
        if plan is not None:
            change = replace(change, verdict=plan.verdict.value, because=plan.because)
        version = await self._write(data, before, change, anyway=bool(asked.anyway))
        return Applied(digest, version, plan)

    async def roll_back(self, number: int, author: str, note: str, *, tenant: str = "") -> Applied:
        """Puts the file of an earlier version in force; 0: of the one before.

        It is not tried on recorded load: what takes a mistake back must be quick, and was in force.
        One that was never in force by hand may name no places that the file in force does not.

        Raises:
            NotFound: there is no such version.
            NotNow: it is in force, would be refused now, or the file is read-only.
            Outrun: somebody else changed it.
            Unavailable: its file cannot be read, or the disk refuses it.
        """
        before = self._in_force()
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
            live = None if self._versions.by_hand(target) else (await self._live()).decode()
            await self._check(data.decode(), tenant, live)
        except (ConfigError, UnicodeDecodeError) as error:
            why = error.problems[0] if isinstance(error, ConfigError) else error
            message = f"version {target.number} would be refused now: {why}"
            raise NotNow(message, reason="POLICY_REFUSED") from error
        note = note or f"back to version {target.number}"
        change = Change(target.hash, Source.ROLLBACK, author, note, rolled_back_to=target.number)
        # A change that is not in force is what is taken back, if anything is.
        version = await self._write(data, before, change, anyway=True)
        return Applied(target.hash, version)

    async def undo(self, content: bytes) -> bool:
        """Writes the file in force back over an edit by hand, where its policy says so.

        Once: an edit within a minute after the last one was undone is respected. So is one that
        cannot be undone. The edit is kept as a version that can be applied.

        Args:
            content: what the file was read to hold.

        Returns:
            whether it was undone; then it is not to come in force.
        """
        if self._versions.expects(content) or await self._edits() is not Edits.UNDONE:
            return False
        async with self._writing:
            if self._versions.expects(content) or await self._on_disk() != hash_of(content):
                return not self._versions.expects(content)  # another one: the next look finds it
            if why := self._respected():
                await self._respect(content, why)
                return False
            return await self._write_back(content, self._in_force())

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

    async def _edits(self) -> Edits:
        """What the policy in force says of edits; where it cannot be read they are respected."""
        with suppress(ServiceError, OSError, UnicodeDecodeError, ConfigError):
            text = (await self._live()).decode()
            return parse_document(text, Scaling, source=str(self._file.path)).content.edits
        return Edits.RESPECTED

    def _respected(self) -> str:
        """Why an edit is respected though edits are to be undone; empty: it is not."""
        at = self._undone_at
        if at is not None and self._clock() - at < AGAIN_SECONDS:
            return "edited again within a minute after an edit was undone"
        return self.read_only

    async def _respect(self, content: bytes, why: str) -> None:
        log.warning("an edit of the scaling file is respected", why=why, file=str(self._file.path))
        change = Change(hash_of(content), Source.FILE, "", f"respected: {why}")
        with suppress(OSError):  # only its note is lost
            await asyncio.to_thread(self._versions.announce, change)

    async def _write_back(self, content: bytes, before: Version) -> bool:
        """Keeps the edit, then writes the file in force over it."""
        path = self._file.path
        try:
            data = await asyncio.to_thread(self._versions.content, before)
            undone = self._versions.undone(content, f"undone, back to version {before.number}")
            await self._versions.flush()
            await asyncio.to_thread(write, path, data)
        except (OSError, ServiceError) as error:
            await self._respect(content, f"it cannot be undone: {error}")
            return False
        self._undone_at = self._clock()
        log.warning(
            "an edit of the scaling file is undone",
            file=str(path),
            version=undone.number,
            back_to=before.number,
        )
        return True

    def _in_force(self) -> Version:
        version = self._versions.latest
        if version is None:
            raise NotNow("no scaling file is in force yet", reason="POLICY_NOT_IN_FORCE")
        return version

    async def _live(self) -> bytes:
        return await asyncio.to_thread(self._versions.content, self._in_force())

    async def _on_disk(self) -> str:
        """Hash of what the file holds; empty: it cannot be read."""
        with suppress(OSError):
            return hash_of(await asyncio.to_thread(read_plain, self._file.path, MAX_BYTES))
        return ""

    def _surroundings(self, live: str | None) -> dict[str, Any]:
        return {**self._file.surroundings, "live": live, "allowed": self._places_allowed}

    async def _check(self, content: str, tenant: str, live: str | None) -> Checked:
        question = {"kind": "check", "check": self._surroundings(live), "given": content}
        return TypeAdapter(Checked).validate_python(await self._checks.run(question, tenant=tenant))

    async def _checked(self, content: str, tenant: str) -> Checked:
        try:
            return await self._check(content, tenant, (await self._live()).decode())
        except ConfigError as error:
            raise _refused(error) from error

    async def _refuse_unseen(self, before: Version, *, anyway: bool) -> bool:
        """Whether somebody wrote what nobody has seen in force; writing over it is refused."""
        unseen = await self._on_disk() not in ("", before.hash)
        if unseen and not anyway:
            raise Outrun(
                f"{self._file.path} holds a change of somebody else that is not in force; look at "
                "it first, or give a reason to write over it",
                reason="POLICY_CHANGED",
            )
        return unseen

    async def _gate(self, content: str, asked: Asked) -> Plan | None:
        try:
            plan = await self.plan(content, asked.span_seconds, lambda _: None, tenant=asked.tenant)
        except BadRequest:
            raise
        except ServiceError as error:
            if not asked.anyway:
                raise
            await self._checked(content, asked.tenant)
            log.warning("a scaling file is applied untried", error=error.message)
            return None
        if not plan.reason_needed or asked.anyway:
            return plan
        if plan.verdict is Verdict.WORSE:
            message = f"it does worse than the one in force: {plan.because}"
            raise NotNow(message, reason="POLICY_WORSE")
        message = f"nobody can say how it does, though enough load is on record: {plan.because}"
        raise NotNow(message, reason="POLICY_UNKNOWN")

    async def _write(
        self, data: bytes, before: Version, change: Change, *, anyway: bool
    ) -> Version | None:
        """Writes to its end, whoever hangs up: the file and its version belong together."""
        task = asyncio.create_task(self._put(data, before, change, anyway=anyway))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _put(
        self, data: bytes, before: Version, change: Change, *, anyway: bool
    ) -> Version | None:
        async with self._writing:
            if self._in_force() != before:
                raise Outrun("the scaling file was changed meanwhile", reason="POLICY_CHANGED")
            await self._refuse_unseen(before, anyway=anyway)
            try:
                await asyncio.to_thread(self._versions.announce, change)
            except OSError as error:
                message = f"the change cannot be kept: {error.strerror}; nothing is changed"
                raise Unavailable(message, reason="HISTORY_UNWRITTEN") from error
            try:
                await asyncio.to_thread(write, self._file.path, data)
            except ServiceError:
                self._versions.withdraw()
                raise
            return await self._versions.until_in_force(change.hash, self._in_force_seconds)


def _refused(error: ConfigError) -> BadRequest:
    """What is wrong with a file that somebody sent, by its lines."""
    return BadRequest.of(
        *(
            Violation(
                f"content:{problem.line}" if problem.line else "content",
                f"{problem.key}: {problem.rule}"
                + (f", got {problem.value}" if problem.value else ""),
            )
            for problem in error.details
        )
    )
