"""A shared state that fails when a test says so."""

import asyncio
from collections.abc import Callable, Mapping

from services.common.errors import Unavailable


class MemoryState:
    """A shared state in memory.

    Attributes:
        away: it cannot be reached.
        refuses_writes: it takes none, as on a full disk.
        refusal: why it refuses everything; empty where it does not.
        before_swap: what another router does just before a record is put.
        asked: how often anything was asked of it.
    """

    def __init__(self) -> None:
        self.kept_records: dict[str, bytes] = {}
        self.away = False
        self.refuses_writes = False
        self.refusal = ""
        self.before_swap: Callable[[], None] = lambda: None
        self.asked = 0

    async def changes(self) -> str:
        self._check()
        return repr(self.kept_records)

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        self._check()
        return repr(self.kept_records), dict(self.kept_records)

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        await asyncio.sleep(0)  # as what goes over a wire would
        self._check()
        if self.refuses_writes:
            raise Unavailable("full", reason="STATE_REFUSED")
        self.before_swap()
        if self.kept_records.get(name) != before:
            return False, self.kept_records.get(name, b"")
        self.kept_records[name] = after
        return True, after

    async def keep_once(
        self, key: str, value: bytes, seconds: float, *, tenant: str
    ) -> bytes | None:
        raise NotImplementedError

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        raise NotImplementedError

    def _check(self) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        if self.refusal:
            raise Unavailable(self.refusal, reason="STATE_REFUSED")
