"""A replica's processes while they run: that one has died, and how they are asked to end.

Leaves to `replica_processes` what is started, what is written down, and what is cleared away.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import structlog

from services.scaler.targets import processes
from services.scaler.targets.records import Record
from services.scaler.targets.slots import OnDeath
from services.scaler.targets.triton_client import TritonClient

log = structlog.get_logger()


class RunningReplica:
    """The server of a replica and its Python stubs, watched through process descriptors.

    Attributes:
        record: what is known of them, as it is written down; it names the server.
        client: asks the server how it is.
    """

    def __init__(
        self,
        record: Record,
        client: TritonClient,
        on_death: OnDeath,
        last_error: Callable[[str], str],
    ) -> None:
        """`last_error` gives what a replica's log says last of what is wrong."""
        self.record = record
        self.client = client
        self._on_death = on_death
        self._last_error = last_error
        self._server: processes.Watch | None = None
        self._stubs: list[processes.Watch] = []

    def watch(self, *, report: bool = True) -> bool:
        """Watches server and known stubs; False, or a death reported, if one is gone already."""
        assert self.record.server is not None  # noqa: S101
        server = self.record.server

        def died() -> None:
            processes.reap(server.pid)
            self._on_death(self.record.replica.id, self._why_it_died())

        self._server = processes.Watch.open(server.pid, server.ticks, died)
        whole = self._server is not None and self.watch_stubs(report=report)
        if self._server is None and report:
            died()
        return whole

    def watch_stubs(self, *, report: bool = True) -> bool:
        """Watches the stubs in the record; False, or a death reported, if one is gone already.

        Raises:
            OSError: one cannot be watched; then none is.
        """
        record = self.record

        def died() -> None:
            self._on_death(record.replica.id, "its Python stub died")

        with ExitStack() as opened:
            watches = []
            for stub in record.stubs or ():
                watches.append(watch := processes.Watch.open(stub.pid, stub.ticks, died))
                if watch is not None:
                    opened.callback(watch.close)
            opened.pop_all()
        self._stubs = [watch for watch in watches if watch is not None]
        if record.stubs is None:
            return True
        whole = len(self._stubs) == len(watches) and bool(watches) == record.python
        if not whole and report:
            died()
        return whole

    async def end(self, *, gently: bool, within_seconds: float) -> None:
        """From now on deaths are no news; gently, the server is asked to end and waited for."""
        for watch in self._watches():
            watch.expect()
        if gently and self._server is not None:
            self._server.send(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._server.dead.wait(), within_seconds)
            except TimeoutError:
                log.warning("replica did not end by itself", replica=self.record.replica.id)
        await self.client.close()

    def bury(self) -> None:
        """Collects what has died and stops watching."""
        for watch in self._watches():
            processes.reap(watch.pid)
            watch.close()

    async def let_go(self) -> None:
        """Stops watching, and leaves it running."""
        await self.client.close()
        for watch in self._watches():
            watch.close()

    def _watches(self) -> Iterator[processes.Watch]:
        if self._server is not None:
            yield self._server
        yield from self._stubs

    def _why_it_died(self) -> str:
        if self.record.stubs is not None:
            return "its server process died"
        reason = self._last_error(self.record.replica.id)
        return f"its server ended while starting{': ' if reason else ''}{reason}"
