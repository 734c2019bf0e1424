"""Checks and tries scaling files beside the one in force.

Each in a process of its own: what callers send is never read in this one.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
from pydantic import TypeAdapter

from services.common.config import ConfigError
from services.common.durations import wall_clock
from services.common.errors import BadRequest, NotNow, ServiceError, Violation
from services.scaler.changes.asked import Asked, Checked
from services.scaler.changes.trials import Trials
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.history.versions import Versions, hash_of
from services.scaler.policy.plans import Plan, Scene, Simulation, Verdict

log = structlog.get_logger()

LOAD_FOLDER, DECISIONS_FOLDER = "load", "decisions"
"""What trials read of the history."""

PLAN_HOLDS_SECONDS = 300.0
"""The recorded load of days is much the same so long."""


@dataclass(frozen=True)
class _Planned:
    """A plan that was just made: who looks at it and then applies the file need not wait again."""

    key: tuple[str, str, float, str]
    until: float
    plan: Plan
    page: bool

    def holds(self, key: tuple[str, str, float, str], now: float, *, page: bool) -> bool:
        return key == self.key and now < self.until and (self.page or not page)


class Trying:
    """What files would do beside the one in force."""

    def __init__(
        self,
        file: ScalingFile,
        versions: Versions,
        trials: Trials,
        folder: Path,
        *,
        checks: Trials,
        urgent_checks: Trials,
        places_allowed: Collection[str] = (),
        replicas: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """Tries nothing yet.

        Args:
            file: checks as the watched one does.
            versions: what was in force.
            trials: where files are tried.
            folder: of the history, with the recorded load and the decisions.
            checks: where files are checked alone, which takes no turn of a trial.
            urgent_checks: where those are that a mistake is taken back to, which take none either.
            places_allowed: places that files may name though the one in force does not.
            replicas: what was measured of each pool's replicas: `capacity`, the four constants or
                None, `correction` of them, `fit`, what they were learned from, `start_seconds`, and
                `start_spread`, the standard deviation of their logarithm.
            clock: gives monotonic seconds.
            wall: gives seconds since 1970.
        """
        self._file = file
        self._versions = versions
        self._trials = trials
        self._checks = checks
        self._urgent_checks = urgent_checks
        self._places_allowed = sorted(places_allowed)
        self._folder = folder
        self._replicas = replicas
        self._clock = clock
        self._wall = wall
        self._planned: _Planned | None = None

    async def check(
        self, content: str, *, caller: str, live: str | None, urgent: bool = False
    ) -> Checked:
        """Checks a file.

        Args:
            content: its text.
            caller: whose turn it takes.
            live: the file in force, whose places it may name; None: it may name any.
            urgent: it is to be taken back to, and waits for no check of what may come.

        Raises:
            ConfigError: it would be refused.
            ServiceError: it cannot be checked; see `Trials.run`.
        """
        question = {"kind": "check", "check": self._surroundings(live), "given": content}
        checks = self._urgent_checks if urgent else self._checks
        return TypeAdapter(Checked).validate_python(await checks.run(question, caller=caller))

    async def checked(self, content: str, caller: str) -> Checked:
        """Checks a file that somebody sends.

        Raises:
            BadRequest: it would be refused.
            ServiceError: it cannot be checked; see `Trials.run`.
        """
        try:
            return await self.check(content, caller=caller, live=await self._live())
        except ConfigError as error:
            raise _refused(error) from error

    async def plan(
        self,
        content: str,
        span_seconds: float,
        progress: Callable[[float], None],
        *,
        asked: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        page: bool = False,
        caller: str = "",
    ) -> Plan:
        """What a file would have decided beside the one in force.

        Args:
            content: the file.
            span_seconds: how much of the recorded load is tried.
            progress: hears how far it is.
            asked: what replicas are to be taken to be, by pool, as `replicas` tells it.
            page: with a page.
            caller: whose turn it takes.

        Raises:
            BadRequest: it would be refused.
            ServiceError: it cannot be tried; see `Trials.run`.
        """
        live, in_force = await self._live(), self._versions.in_force_now()
        assumed = json.dumps(dict(asked), sort_keys=True)
        key = (hash_of(content.encode()), hash_of(live.encode()), span_seconds, assumed)
        if self._planned is not None and self._planned.holds(key, self._clock(), page=page):
            plan = self._planned.plan
            await self.checked(content, caller)  # the folders that it names may have changed
            return plan if page else replace(plan, page="")
        question = {
            "kind": "plan",
            "check": self._surroundings(live),
            "path": str(self._file.path),
            "live": live,
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
            answer = await self._trials.run(question, progress, caller=caller)
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
        caller: str = "",
    ) -> Simulation:
        """What a file, empty: the one in force, would have done with a trace.

        Raises:
            BadRequest: it would be refused.
            ServiceError: it cannot be tried; see `Trials.run`.
        """
        live = await self._live()
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
            answer = await self._trials.run(question, progress, caller=caller)
        except ConfigError as error:
            raise _refused(error) from error
        return TypeAdapter(Simulation).validate_python(answer)

    async def gate(self, content: str, asked: Asked) -> Plan | None:
        """What was found of a file that may come in force; None: it was not tried.

        Raises:
            BadRequest: it would be refused.
            NotNow: it does worse than the one in force, or nobody can say though enough is on
                record, and no reason is given.
            ServiceError: it cannot be tried, and no reason is given; see `Trials.run`.
        """
        try:
            plan = await self.plan(content, asked.span_seconds, lambda _: None, caller=asked.caller)
        except BadRequest:
            raise
        except ServiceError as error:
            if not asked.anyway:
                raise
            await self.checked(content, asked.caller)
            log.warning("a scaling file is applied untried", error=error.message)
            return None
        if not plan.reason_needed or asked.anyway:
            return plan
        if plan.verdict is Verdict.WORSE:
            message = f"it does worse than the one in force: {plan.because}"
            raise NotNow(message, reason="POLICY_WORSE")
        message = f"nobody can say how it does, though enough load is on record: {plan.because}"
        raise NotNow(message, reason="POLICY_UNKNOWN")

    async def _live(self) -> str:
        return (await self._versions.live()).decode()

    def _surroundings(self, live: str | None) -> dict[str, Any]:
        return {**self._file.surroundings, "live": live, "allowed": self._places_allowed}


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
