"""Puts together what the scaler keeps of its work, and the calls about it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from services.common.caller_turns import CallerTurns
from services.common.config import ConfigError
from services.common.kept_up import kept_up
from services.scaler.changes.hand_edits import HandEdits
from services.scaler.changes.policies import Policies
from services.scaler.changes.trials import Trials
from services.scaler.changes.trying import DECISIONS_FOLDER, LOAD_FOLDER, Trying
from services.scaler.changes.writing import Writing
from services.scaler.config import Scaling
from services.scaler.fleet.pools import PoolView
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.fleet.sizes import Sizes
from services.scaler.history import recorder
from services.scaler.history.decisions import DecisionLog
from services.scaler.history.journal import Journal, Limits
from services.scaler.history.lasting import LastingFile
from services.scaler.history.overrides import OverrideBook
from services.scaler.history.recorder import Recorder
from services.scaler.history.versions import Versions
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.settings import Objectives
from services.scaler.pools.pool import Pool
from services.scaler.servicer import Calls
from services.scaler.wire.decisions import DecisionCalls
from services.scaler.wire.overrides import OverrideCalls
from services.scaler.wire.policies import PolicyCalls
from services.scaler.wire.trials import TrialCalls

DECISIONS = Limits(file_bytes=4 << 20, files=64)
"""256 MB: about 400,000 decisions; a pool that changes every 10 minutes makes 144 a day."""

CHECK_SECONDS = 30.0
"""A check takes one or two where nothing else runs."""


class History:
    """What stays of the scaler's work, in a folder of its own.

    Attributes:
        decisions: takes what is decided.
        overrides: tells what operators set.
        versions: hears of each scaling file that comes in force.
        edits: judges edits of the scaling file by hand.
        calls: what callers ask of it.
    """

    def __init__(
        self,
        folder: Path,
        file: ScalingFile,
        loads: Loads,
        metrics: Metrics,
        *,
        places_allowed: Collection[str] = (),
        replicas: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        lasting: Callable[[], Lasting] = Lasting,
    ) -> None:
        """Touches nothing yet.

        Args:
            folder: of its own.
            file: what scaling files are checked as.
            loads: what routers report.
            metrics: what is counted.
            places_allowed: places that callers' scaling files may name anew.
            replicas: what was `measured` of each pool's replicas, by pool.
            lasting: what of sizes holds beyond a restart.
        """
        self._scaling: Scaling | None = None
        self._lasting, self._lasting_file = lasting, LastingFile(folder / "sizes.json")
        self.versions = Versions(folder / "versions")
        self.overrides = OverrideBook(folder / "overrides.json")
        self._journals = (
            Journal(folder / DECISIONS_FOLDER, DECISIONS, metrics.kept("decisions")),
            Journal(folder / LOAD_FOLDER, recorder.LIMITS, metrics.kept("load")),
        )
        self.decisions = DecisionLog(
            self._journals[0],
            version=lambda: self.versions.number,
            on_drop=metrics.dropped_watchers.inc,
        )
        self._recorder = Recorder(loads, self._journals[1], self._objective)
        metrics.history_unwritten.labels("versions").set_function(lambda: self.versions.unwritten)
        metrics.policy_version.set_function(lambda: self.versions.number)
        metrics.overrides.set_function(lambda: len(self.overrides.listed()))
        trying = Trying(
            file,
            self.versions,
            Trials(),
            folder,
            checks=Trials(deadline_seconds=CHECK_SECONDS),
            urgent_checks=Trials(deadline_seconds=CHECK_SECONDS),
            places_allowed=places_allowed,
            replicas=replicas,
        )
        writing = Writing(file, self.versions)
        self.edits = HandEdits(writing, self.versions)
        policies = Policies(self.versions, trying, writing)
        turns = CallerTurns()
        self.calls = Calls(
            turns,
            DecisionCalls(self.decisions, turns),
            PolicyCalls(policies, self.versions, turns),
            OverrideCalls(self.overrides, self._pools),
            TrialCalls(trying),
        )

    def open(self) -> Lasting:
        """Takes up what an earlier scaler left. Reads files, once, before anything is decided.

        Returns:
            what sizes go by of it.

        Raises:
            ConfigError: the folder cannot be read.
        """
        try:
            self.versions.open()
        except OSError as error:
            raise ConfigError("environment", [f"history folder: {error}"]) from error
        self.overrides.open()
        return self._lasting_file.read()

    def configure(self, scaling: Scaling) -> None:
        """Takes the pools that there are now."""
        self._scaling = scaling
        self.decisions.keep_only(scaling.pools)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Writes what gathers and records the load; at the end of the block all that is left."""
        async with AsyncExitStack() as stack:
            for journal in self._journals:
                await stack.enter_async_context(journal.writing())
            beside = (
                kept_up("versions of the scaling file", self.versions.run),
                kept_up("overrides", self.overrides.run),
                kept_up("recorded load", self._recorder.run),
                kept_up("lasting", partial(self._lasting_file.run, self._lasting)),
            )
            # No group: what ends the block is to come out of it as it is.
            keeping = [asyncio.create_task(work) for work in beside]
            try:
                yield
            finally:
                for task in keeping:
                    task.cancel()
                await asyncio.gather(*keeping, return_exceptions=True)
                await self._lasting_file.keep(self._lasting())

    def close(self) -> None:
        """Ends the streams of decisions: the scaler is going away."""
        self.decisions.close()

    def _pools(self) -> Mapping[str, Pool]:
        return self._scaling.pools if self._scaling is not None else {}

    def _objective(self, tier: str) -> float:
        """Seconds to the first text that a tier is held to, the strictest of its pools'."""
        pools = self._scaling.pools.values() if self._scaling is not None else ()
        scales = [pool.scale for pool in pools if pool.tier == tier and pool.scale is not None]
        held = [scale.objectives.ttft_seconds for scale in scales]
        return min(held, default=Objectives().ttft_seconds)


def measured(view: PoolView, sizes: Sizes) -> dict[str, Any]:
    """What trials take a pool's replicas to be: what they were seen to do."""
    learned = sizes.learned(view.name)
    capacity = learned.capacity
    return {
        "capacity": None if capacity is None else dataclasses.asdict(capacity),
        "correction": learned.correction,
        "fit": dataclasses.asdict(learned.fit),
        "start_seconds": view.typical_start_seconds,
        "start_spread": view.start_spread,
    }
