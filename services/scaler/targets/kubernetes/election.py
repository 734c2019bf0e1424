"""Finds out whether this scaler is the one that acts: it then holds a Lease."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import structlog

from services.scaler.policy.lease import RENEW_SECONDS, RETRY_SECONDS, Record, Step, step
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault

log = structlog.get_logger()


class Leases(Protocol):
    """Where Leases are; see `KubernetesClient`."""

    async def lease(self, namespace: str, name: str) -> Record | None:
        """What one says; None: there is none."""

    async def write_lease(
        self, namespace: str, name: str, record: Record, now: dt.datetime, *, new: bool
    ) -> Record:
        """Writes one as it was seen, or a new one."""


class Election:
    """One Lease, and one who would hold it."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_change: Callable[[], None],
        on_fault: Callable[[Fault], None],
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_change` hears when who acts may have changed, `on_fault` of each failure."""
        self._leases = leases
        self._place = (namespace, name)
        self._identity = identity
        self._on_change = on_change
        self._on_fault = on_fault
        self._clock = clock
        self._pause = pause
        self._seen: Record | None = None
        self._seen_at = 0.0
        self._until = float("-inf")
        self._led = False

    @property
    def leads(self) -> bool:
        """Whether this scaler acts now."""
        return self._clock() < self._until

    @property
    def holder(self) -> str:
        """Who was last seen to hold it; empty: nobody, or it is not known."""
        return "" if self._seen is None else self._seen.holder

    async def run(self) -> None:
        """Looks after the Lease for ever; the caller owns it."""
        while True:
            await self.turn()
            await self._pause(RETRY_SECONDS)

    async def turn(self) -> None:
        """Looks at it once, and renews or takes it if that is due."""
        began = self._clock()
        try:
            record = await self._leases.lease(*self._place)
            if record != self._seen:
                self._seen, self._seen_at = record, self._clock()
            todo = step(record, self._clock() - self._seen_at, self._identity)
            if todo is Step.WAIT:
                self._until = float("-inf")
            else:
                await self._write(record, todo)
                self._until = began + RENEW_SECONDS
        except ClusterFault as error:
            self._on_fault(error.fault)
            if error.fault is not Fault.CONFLICT:  # another was quicker: no trouble
                log.warning("the lease cannot be looked after", reason=str(error))
        if self.leads is not self._led:
            self._led = self.leads
            log.info("this scaler acts" if self._led else "another scaler acts", holder=self.holder)
            self._on_change()

    async def give_up(self) -> None:
        """Lets the next one have it at once, if this scaler holds it."""
        leads, self._until = self.leads, float("-inf")
        if leads and self._seen is not None:
            with suppress(ClusterFault):
                free = replace(self._seen, holder="")
                await self._leases.write_lease(*self._place, free, _now(), new=False)

    async def _write(self, record: Record | None, todo: Step) -> None:
        before = record or Record("", 0.0, "", 0, "")
        moved = before.holder != self._identity and todo is not Step.CREATE
        wanted = replace(
            before, holder=self._identity, transitions=before.transitions + (1 if moved else 0)
        )
        new = todo is Step.CREATE
        self._seen = await self._leases.write_lease(*self._place, wanted, _now(), new=new)
        self._seen_at = self._clock()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
