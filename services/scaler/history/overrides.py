"""What operators set for a pool for a time: kept over restarts, ending by itself."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import structlog
from pydantic import Field, TypeAdapter, ValidationError

from services.common.durations import Moment, wall_clock
from services.common.files import write_whole
from services.common.rules import rule_of
from services.scaler.policy.sizing.override import Override, OverrideKind

log = structlog.get_logger()

MAX_OVERRIDES = 1024
AGAIN_SECONDS = 5.0
"""When it is looked whether the disk has what holds."""
MAX_SIZE = 1024
"""Of a pin."""


@dataclass(frozen=True)
class Held:
    """An override as an operator set it.

    Attributes:
        pool: of which pool.
        kind: how.
        size: of a pin; 0 for others.
        author: who asked for it.
        reason: why.
        since, expires: seconds since 1970.
    """

    pool: str
    kind: OverrideKind
    size: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    author: str
    reason: str
    since: Moment
    expires: Moment


_ADAPTER = TypeAdapter(Held)


class OverrideBook:
    """One override at most for each pool, in a file of their own."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = wall_clock) -> None:
        """Reads nothing yet. `wall` gives seconds since 1970."""
        self._path = path
        self._wall = wall
        self._held: dict[str, Held] = {}
        self._saved = True
        self._writes = asyncio.Lock()

    def open(self) -> None:
        """Reads what an earlier scaler left. What is none is left out and logged."""
        try:
            found = orjson.loads(self._path.read_bytes())
            if not isinstance(found, list):
                raise ValueError("it is no list")  # noqa: TRY004, TRY301 - of what is read
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            why = f"{self._path}: {error}"
            log.error("overrides cannot be read; none holds", error=why)  # noqa: TRY400
            return
        for one in found:
            try:
                held = _ADAPTER.validate_python(one)
            except ValidationError as error:
                wrong = "; ".join(
                    " ".join((*map(str, of["loc"]), rule_of(of))) for of in error.errors()
                )
                why = f"{self._path}: {wrong}"
                log.error("an override cannot be read; it does not hold", error=why)  # noqa: TRY400
            else:
                self._held[held.pool] = held

    def held(self, pool: str, wall: float) -> Held | None:
        """The pool's override at this time; None: there is none, or it is over."""
        found = self._held.get(pool)
        return found if found is not None and wall < found.expires else None

    def of(self, pool: str, wall: float) -> Override | None:
        """See `Overrides.of`."""
        held = self.held(pool, wall)
        if held is None:
            return None
        return Override(held.kind, held.expires, held.size, held.author, held.reason)

    def listed(self) -> list[Held]:
        """Those that hold now, by pool."""
        now = self._wall()
        return [one for name, one in sorted(self._held.items()) if now < one.expires]

    async def put(self, override: Held) -> bool:
        """Sets it at once; returns whether it is also on the disk.

        Raises:
            OverflowError: there are too many.
        """
        if override.pool not in self._held and len(self.listed()) >= MAX_OVERRIDES:
            raise OverflowError(f"{MAX_OVERRIDES} overrides are enough")
        self._held[override.pool] = override
        return await self._keep()

    async def end(self, pool: str) -> tuple[Held | None, bool]:
        """Ends the pool's override; returns which, and whether that is on the disk too."""
        found = self.held(pool, self._wall())
        self._held.pop(pool, None)
        return found, await self._keep()

    async def run(self) -> None:
        """Has on the disk what holds, also after the disk refused or lost it. Runs for ever."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            await self.mend()

    async def mend(self) -> None:
        """Writes what the disk refused or has lost."""
        lost = bool(self.listed()) and not await asyncio.to_thread(self._path.exists)
        if lost and self._saved:
            log.warning("the file of overrides was gone and is made anew", file=str(self._path))
        if lost or not self._saved:
            await self._keep()

    async def _keep(self) -> bool:
        async with self._writes:
            now = self._wall()
            self._held = {name: one for name, one in self._held.items() if now < one.expires}
            held = [dataclasses.asdict(one) for one in self._held.values()]
            try:
                await asyncio.to_thread(write_whole, self._path, json.dumps(held).encode())
            except OSError as error:
                if self._saved:
                    log.error("overrides cannot be kept", file=str(self._path), error=str(error))  # noqa: TRY400
                self._saved = False
            else:
                if not self._saved:
                    log.warning("overrides can be kept again", file=str(self._path))
                self._saved = True
            return self._saved
