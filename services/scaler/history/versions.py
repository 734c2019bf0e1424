"""Every scaling file that was in force or was undone, in order, with who put it there and why.

Who applies a file says so first; the version gets its author when the file is seen in force, so
that a kill at any moment leaves either the old version or the new one whole. A file that nobody
announced was written by a hand: its author is not known. Leaves to `version_files` how they lie on
the disk.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import structlog
from pydantic import Field, TypeAdapter

from services.common.durations import Moment, wall_clock
from services.common.errors import NotNow
from services.scaler.history.version_files import VersionFiles

log = structlog.get_logger()

MAX_VERSIONS = 500
"""Beyond it the older half is dropped, but for what is in force and what it can go back to."""

MOST_FOUND = 16
"""Files without a line that are taken up at a start; a kill leaves one."""
FOUND = "found without a line on record, as a kill leaves it"

RETRY_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""When it is looked whether the disk still has them."""

Number = Annotated[int, Field(ge=0, le=1 << 53)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a file, in hex: it names a file here too."""


class Source(StrEnum):
    """Where a version came from."""

    START = "start"
    FILE = "file"
    APPLY = "apply"
    ROLLBACK = "rollback"
    UNDONE = "undone"
    """A hand's, undone before it came in force."""


@dataclass(frozen=True)
class Change:
    """A change that is announced before the file is written.

    Attributes:
        hash: of the file that is to be in force.
        source: apply or rollback; file: a hand wrote it already.
        author: who asks for it.
        note: what it is for.
        anyway: why, though it does worse on the recorded days or nobody can say; empty: it needs no
            reason.
        rolled_back_to: the version whose file it is once more; 0: none.
        verdict: what the trial on the recorded days came to, as plans name it; empty: none was.
        because: why, in one sentence.
    """

    hash: Hash
    source: Source
    author: str
    note: str
    anyway: str = ""
    rolled_back_to: Number = 0
    verdict: str = ""
    because: str = ""


@dataclass(frozen=True)
class Version:
    """A scaling file that was in force, or was undone.

    Attributes:
        number: counts from 1.
        hash: SHA-256 of the file, in hex.
        since: when it came in force or was undone, seconds since 1970.
        source: where it came from.
        author, note, anyway, rolled_back_to, verdict, because: as in `Change`; empty: not known.
    """

    number: Number
    hash: Hash
    since: Moment
    source: Source
    author: str = ""
    note: str = ""
    anyway: str = ""
    rolled_back_to: Number = 0
    verdict: str = ""
    because: str = ""


_VERSION, _CHANGE = TypeAdapter(Version), TypeAdapter(Change)


def hash_of(content: bytes) -> str:
    """The hash by which versions tell a file."""
    return hashlib.sha256(content).hexdigest()


class Versions:
    """The versions in a folder of their own; one process at a time writes it."""

    def __init__(self, folder: Path, *, wall: Callable[[], float] = wall_clock) -> None:
        """Reads nothing yet. `wall` gives seconds since 1970."""
        self.folder = folder
        self._files = VersionFiles(folder)
        self._wall = wall
        self._known: list[Version] = []
        self._contents: dict[str, bytes] = {}  # that are not on the disk yet, or are in force
        self._to_write: list[Version] = []
        self._announced: Change | None = None
        self._found: dict[str, bytes] = {}  # at the start, by hash; no version has them
        self._ahead = ""  # hash of what was kept last, which may be no version yet
        self._changed = asyncio.Event()
        self._to_do = asyncio.Event()
        self._writes = asyncio.Lock()

    @property
    def unwritten(self) -> int:
        """Versions that are not on the disk yet."""
        return len(self._to_write)

    @property
    def latest(self) -> Version | None:
        """The version in force; None: none was seen yet."""
        return self.before(None)

    @property
    def number(self) -> int:
        """Number of the version in force; 0: none was seen yet."""
        latest = self.latest
        return latest.number if latest is not None else 0

    def before(self, number: int | None) -> Version | None:
        """The version that was in force before this one, None: the newest; None: there is none."""
        return next(
            (
                one
                for one in reversed(self._known)
                if one.source is not Source.UNDONE and (number is None or one.number < number)
            ),
            None,
        )

    def expects(self, content: bytes) -> bool:
        """Whether this file is in force or announced, and no hand's."""
        known = self.latest, self._announced
        return hash_of(content) in {one.hash for one in known if one is not None}

    def open(self) -> None:
        """Reads what is on record. What cannot be read is left out and logged.

        Raises:
            OSError: the folder cannot be read.
        """
        for line in self._files.read_lines():
            try:
                self._known.append(_VERSION.validate_python(orjson.loads(line)))
            except ValueError:
                file = str(self._files.lines)
                log.error("a line of the scaling file's versions cannot be read", file=file)  # noqa: TRY400
        self._known.sort(key=lambda one: one.number)
        recorded = {one.hash for one in self._known}
        self._found = self._files.others(recorded, MOST_FOUND)
        announced = self._files.announced
        try:
            self._announced = _CHANGE.validate_python(orjson.loads(announced.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            log.error("who was to change the scaling file cannot be read", file=str(announced))  # noqa: TRY400

    def announce(self, change: Change) -> None:
        """Says who is about to put a file in force. Writes: to be called in a thread.

        Raises:
            OSError: it cannot be written; nothing is announced.
        """
        self._files.announce(json.dumps(dataclasses.asdict(change)).encode())
        self._announced = change

    def note(self, change: Change) -> None:
        """The same where the disk refuses it: then a restart before it happens forgets who."""
        self._announced = change

    def withdraw(self, change: Change) -> None:
        """A change that was announced does not happen. Another one that was since stays."""
        if self._announced != change:
            return
        self._announced = None
        self._files.withdraw()

    def in_force(self, content: bytes) -> Version:
        """A file is in force; comes back at once. The same once more is no new version."""
        digest, latest = hash_of(content), self.latest
        self._contents[digest] = content
        self._take_found(digest)
        if latest is not None and latest.hash == digest:
            return latest
        number, now = self._next, self._wall()
        said = self._announced
        if said is not None and said.hash == digest:
            version = Version(number=number, since=now, **dataclasses.asdict(said))
        else:
            version = Version(number, digest, now, Source.START if latest is None else Source.FILE)
        self._keep(version, content)
        log.info(
            "a version of the scaling file is in force",
            version=version.number,
            hash=digest,
            source=str(version.source),
            author=version.author,
        )
        return version

    def keep(self, content: bytes) -> None:
        """Has a file on the disk whole, which is no version yet. To be called in a thread.

        After a kill the next scaler finds it, and puts it on record as undone.

        Raises:
            OSError: the disk refuses.
        """
        self._ahead = hash_of(content)
        self._files.keep(self._ahead, content)

    def undone(self, content: bytes, note: str) -> Version:
        """A hand's file is not in force any more, or never was; it is kept. Comes back at once."""
        version = Version(self._next, hash_of(content), self._wall(), Source.UNDONE, note=note)
        self._keep(version, content)
        return version

    def _take_found(self, live: str) -> None:
        """Puts on record what an earlier scaler kept and had no time to; not what is in force."""
        found, self._found = self._found, {}
        for digest, content in found.items():
            if digest != live and hash_of(content) == digest:
                self.undone(content, FOUND)

    @property
    def _next(self) -> int:
        return self._known[-1].number + 1 if self._known else 1

    def _keep(self, version: Version, content: bytes) -> None:
        self._known = _bounded([*self._known, version])
        self._to_write.append(version)
        self._contents[version.hash] = content
        self._changed.set()
        self._to_do.set()

    async def until_in_force(
        self, digest: str, seconds: float, before: Version | None = None
    ) -> Version | None:
        """The version of this hash, once it is the one in force.

        None: not in this time, or another one than `before` came in force first.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.latest is None or self.latest.hash != digest:
                    if before is not None and self.latest != before:
                        return None
                    self._changed.clear()
                    await self._changed.wait()
        latest = self.latest
        return latest if latest is not None and latest.hash == digest else None

    def listed(self, most: int) -> list[Version]:
        """Newest first."""
        return self._known[: -most - 1 : -1]

    def find(self, number: int) -> Version | None:
        """The version of this number; None: it is not on record any more, or never was."""
        return next((one for one in reversed(self._known) if one.number == number), None)

    def by_hand(self, version: Version) -> bool:
        """Whether its file was ever in force because somebody wrote it on the host."""
        hands = (Source.START, Source.FILE)
        return any(one.hash == version.hash and one.source in hands for one in self._known)

    def content(self, version: Version) -> bytes:
        """Its file whole. Reads: to be called in a thread.

        Raises:
            OSError: it cannot be read, or is not what it was.
        """
        data = self._contents.get(version.hash)
        if data is None:
            path = self._files.path_of(version.hash)
            data = path.read_bytes()
            if hash_of(data) != version.hash:
                raise OSError(f"{path} is not what it was")
        return data

    def in_force_now(self) -> Version:
        """The version in force.

        Raises:
            NotNow: none is yet.
        """
        if self.latest is None:
            raise NotNow("no scaling file is in force yet", reason="POLICY_NOT_IN_FORCE")
        return self.latest

    async def live(self) -> bytes:
        """The file in force whole.

        Raises:
            NotNow: none is yet.
            OSError: it cannot be read, or is not what it was.
        """
        return await asyncio.to_thread(self.content, self.in_force_now())

    async def run(self) -> None:
        """Writes versions, and tries again what the disk refuses. Runs for ever."""
        refused = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._to_do.wait()
            try:
                await self.flush()
                await self.mend()
                refused = False
            except OSError as error:
                if not refused:
                    log.error("a version of the scaling file cannot be kept yet", error=str(error))  # noqa: TRY400
                refused = True
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Writes what is not on the disk yet.

        Raises:
            OSError: the disk refuses; trying again is harmless.
        """
        async with self._writes:
            while self._to_write:
                version = self._to_write[0]
                await asyncio.to_thread(self._write, version, self._contents[version.hash])
                self._to_write.remove(version)
                needed = {one.hash for one in (*self._to_write, self.latest) if one is not None}
                self._contents = {
                    digest: content
                    for digest, content in self._contents.items()
                    if digest in needed
                }
                if self._announced is not None and self._announced.hash == version.hash:
                    self.withdraw(self._announced)
            self._to_do.clear()

    async def mend(self) -> None:
        """Makes anew what is gone of the record, but for earlier files, which nobody else has.

        Raises:
            OSError: the disk refuses; trying again is harmless.
        """
        async with self._writes:
            latest = self.latest
            content = None if latest is None else self._contents.get(latest.hash)
            if latest is None or content is None or self._to_write:
                return
            if await asyncio.to_thread(self._mend, latest, content):
                log.warning(
                    "the record of the scaling file's versions was gone and is made anew",
                    folder=str(self.folder),
                )

    def _mend(self, latest: Version, content: bytes) -> bool:
        return self._files.mend(latest.hash, content, lambda: _lines_of(self._known))

    def _write(self, version: Version, content: bytes) -> None:
        dropped = self._files.add(
            version.hash,
            content,
            _lines_of([version]),
            earlier=lambda: _lines_of([one for one in self._known if one.number < version.number]),
            most=MAX_VERSIONS,
        )
        if dropped:
            self._files.keep_only(
                lambda: {one.hash for one in (*self._known, *self._to_write)} | {self._ahead}
            )


def _bounded(versions: list[Version]) -> list[Version]:
    """What of them is kept: hands whose edits are undone push out nothing that was in force last.

    The two that were in force last stay, so that there is always one to go back to.
    """
    if len(versions) <= MAX_VERSIONS:
        return versions
    newer = len(versions) - MAX_VERSIONS // 2
    last = [one for one in versions if one.source is not Source.UNDONE][-2:]
    return [one for one in versions[:newer] if one in last] + versions[newer:]


def _lines_of(versions: Sequence[Version]) -> bytes:
    return b"".join(json.dumps(dataclasses.asdict(one)).encode() + b"\n" for one in versions)
