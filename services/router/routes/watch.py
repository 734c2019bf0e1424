"""Puts changed policy files in force while the router runs, all at once or not at all.

A change is taken once two looks in a row have found the same and nobody has a file open to write
it: one that an editor or a copy still writes may be good policy up to where it has come.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.common.config import ConfigError
from services.common.refusal import Refusal
from services.common.versions import PolicyStore
from services.router.metrics import Metrics
from services.router.policy.routes import Policies
from services.router.routes.compiled import Compiled
from services.router.routes.files import PolicyFiles
from services.router.routes.in_force import InForce

log = structlog.get_logger()

LOOK_SECONDS = 1.0

MOST_LOOKS = 30
"""At files that stand still while somebody has one open to write it: then they are taken."""


@dataclass
class _Read:
    """What a new reading of the files brought: a version ready for requests, or what is wrong.

    `looks` is how often the files stood still since.
    """

    files: PolicyFiles
    found: Compiled | ConfigError
    looks: int = 0


@dataclass(frozen=True)
class _Unkept:
    """A version in force that the store has not kept yet."""

    version: str
    contents: Mapping[str, bytes]
    source: str
    since: dt.datetime


class PolicyWatch:
    """Looks for changed policy files; state of the process.

    A change is read, checked and made ready in threads; then one step without ``await`` tells
    everybody who serves policies and swaps them. Files that are refused leave the old policies in
    force, and are tried again after the next change.

    Attributes:
        refusal: why what the files say now is not in force; None: it is.
    """

    def __init__(
        self,
        files: PolicyFiles,
        in_force: InForce,
        prepare: Callable[[Policies], Compiled],
        store: PolicyStore,
        metrics: Metrics,
        *,
        adopters: Sequence[Callable[[Policies], None]] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Starts from what is in force.

        Args:
            files: the reading that the policies in force come from.
            in_force: adopts changed policies, after everybody else.
            prepare: makes policies ready for requests, or raises a `ConfigError`; runs in a thread.
            store: keeps every version.
            metrics: where versions and refusals are counted.
            adopters: take changed policies just before they are in force.
            wall: gives seconds since 1970.
        """
        self.refusal: Refusal | None = None
        self._files = files
        self._waiting: _Read | None = None  # for a second look
        self._in_force = in_force
        self._prepare = prepare
        self._store = store
        self._metrics = metrics
        self._adopters = adopters
        self._wall = wall
        self._uncalibrated: set[str] = set()
        self._unkept: _Unkept | None = self._to_keep(in_force.now, files, "start")
        self._failing_store = False
        metrics.policy_version.labels(in_force.now.version).set(1)
        self._tell_uncalibrated(in_force.now)

    async def run(self) -> None:
        """Looks every second. Runs for ever; the caller owns it."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Puts what has changed in force, if all of it is right."""
        await self._keep()
        read = await asyncio.to_thread(self._read_if_changed)
        if read is None:
            return
        self._files = read.files
        if isinstance(read.found, ConfigError):
            read.files.contents.clear()
            self._refuse(read.found)
            return
        self._metrics.policy_refused.set(0)
        self.refusal = None
        policies = read.found.policies
        if policies.version != self._in_force.now.version:
            self._adopt(read.found)
        else:  # touched, or what was refused was taken back
            log.info("the policy files are those in force", policy_version=policies.version)
        self._unkept = self._to_keep(policies, read.files, "files")
        await self._keep()

    def _read_if_changed(self) -> _Read | None:
        """What has changed, once it has stood still from one look to the next."""
        waiting, self._waiting = self._waiting, None
        if not self._files.seen.changed():
            return None
        if waiting is not None and not waiting.files.seen.changed():
            waiting.looks += 1
            if waiting.looks >= MOST_LOOKS or not waiting.files.seen.being_written:
                return waiting
            self._waiting = waiting
            return None
        read = self._read(self._files.again())
        if read.files.seen.hindered:  # which is tried again at each look
            return read
        self._waiting = read
        return None

    def _read(self, files: PolicyFiles) -> _Read:
        try:
            return _Read(files, self._prepare(files.load()))
        except ConfigError as error:
            files.seen.note(Path(error.source))  # such as a tokenizer's folder
            return _Read(files, error)
        except Exception as error:  # noqa: BLE001 -- nothing in a file may end the router
            problem = f"cannot be read: {type(error).__name__}: {error}"
            return _Read(files, ConfigError(str(files.routes_file), [problem]))

    def _refuse(self, error: ConfigError) -> None:
        self.refusal = Refusal.of(error, self.refusal, self._wall())
        self._metrics.policy_refusals.inc()
        self._metrics.policy_refused.set(1)
        log.error(
            "changed policy files are refused; what was in force stays",
            file=error.source,
            problems=error.problems,
            policy_version=self._in_force.now.version,
        )

    def _adopt(self, compiled: Compiled) -> None:
        """Swaps the policies in one step."""
        policies, before = compiled.policies, self._in_force.now.version
        for adopt in self._adopters:
            adopt(policies)
        self._in_force.adopt(compiled)
        self._metrics.policy_version.remove(before)
        self._metrics.policy_version.labels(policies.version).set(1)
        log.info("policies in force", policy_version=policies.version, before=before)
        self._tell_uncalibrated(policies)

    def _tell_uncalibrated(self, policies: Policies) -> None:
        """Says once of each route that it could be calibrated and is not."""
        found = {
            route.name: route.quality.artefact
            for route in policies.routes.values()
            if route.quality is not None and route.quality.calibration is None
        }
        for route in sorted(found.keys() - self._uncalibrated):
            log.info(
                "not calibrated: the top tier answers every request",
                route=route,
                calibration=found[route],
            )
        self._uncalibrated = set(found)

    @staticmethod
    def _to_keep(policies: Policies, files: PolicyFiles, source: str) -> _Unkept:
        contents, files.contents = files.contents, {}  # held in memory no longer than it must be
        return _Unkept(policies.version, contents, source, dt.datetime.now(dt.UTC))

    async def _keep(self) -> None:
        """Keeps the version that came in force last, unless it is kept."""
        if (unkept := self._unkept) is None:
            return
        try:
            await asyncio.to_thread(
                self._store.keep,
                unkept.version,
                unkept.contents,
                source=unkept.source,
                now=unkept.since,
            )
        except OSError as error:
            self._metrics.policy_store_failures.inc()
            if not self._failing_store:
                log.error("policies cannot be kept", version=unkept.version, why=str(error))  # noqa: TRY400 -- `why` says it all
            self._failing_store = True
        else:
            self._unkept, self._failing_store = None, False
