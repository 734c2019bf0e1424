"""What sizes go by beyond a restart: what was spent today, what was learned, how long starts took.

One small file, written whole, at most once a minute and when the scaler ends. What of it is not
sound is left out when it is read: the scaler then learns it anew.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.files import write_whole
from services.common.plain_files import read_plain
from services.scaler.policy.sizing.capacity import (
    CORRECTION_LEAST,
    CORRECTION_MOST,
    Fit,
    Learned,
)
from services.scaler.policy.sizing.lengths import Lengths
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.money import KEPT_DAYS, Day, Spent, day_of
from services.scaler.policy.sizing.work import FIGURE_MOST, WorkMemory
from services.scaler.policy.start_times import KEPT_STARTS, StartTimes

log = structlog.get_logger()

KEEP_SECONDS = 60.0
"""A scaler that is killed forgets no money for it: the time since is counted, see `GAP_SECONDS`."""
MAX_BYTES = 8 << 20
MOST_KEPT = 1024
"""Pools that are read; each that is not sound is a line in the log."""

_Sum = Annotated[float, Field(ge=0, le=1e60)]
_Figure = Annotated[float, Field(ge=0, le=FIGURE_MOST)]
_Day = Annotated[int, Field(ge=0, le=1 << 32)]
_Four = tuple[_Sum, _Sum, _Sum, _Sum]
_Seconds = Annotated[float, Field(ge=0, le=60)]
_ByToken = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class _Pool:
    """A pool in the file; figures as in `Fit`, `Learned` and `Lengths`."""

    pool: str
    model: str
    precision: str
    correction: Annotated[float, Field(ge=CORRECTION_LEAST, le=CORRECTION_MOST)]
    gram: tuple[_Four, _Four, _Four, _Four]
    aims: _Four
    weight: _Sum
    constants: tuple[_Seconds, _Seconds, _ByToken, _ByToken]
    lengths: tuple[
        _Figure,
        _Figure,
        _Figure,
        _Figure,
        Annotated[float, Field(ge=1, le=FIGURE_MOST)],  # it is divided by
        _Figure,
        _Figure,
        _Figure,
    ]


@dataclass(frozen=True, config=STRICT)
class _Spent:
    """`Spent` in the file; without days, or their seconds, as scalers of before wrote it."""

    wall: _Figure
    usd: _Figure = 0.0
    days: Annotated[
        tuple[tuple[_Day, _Figure] | tuple[_Day, _Figure, _Figure], ...],
        Field(max_length=KEPT_DAYS),
    ] = ()
    behind_seconds: _Figure = 0.0


@dataclass(frozen=True, config=STRICT)
class _Starts:
    """`StartTimes` of a pool in the file."""

    pool: str
    model: str
    precision: str
    seconds: Annotated[tuple[_Figure, ...], Field(max_length=KEPT_STARTS)]


_SPENT, _POOL, _STARTS = TypeAdapter(_Spent), TypeAdapter(_Pool), TypeAdapter(_Starts)


class LastingFile:
    """The file. `pause` waits for so many seconds."""

    def __init__(
        self, path: Path, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Reads nothing yet."""
        self._path = path
        self._pause = pause
        self._kept: Lasting | None = None
        self._refused = False
        self._one_writes = threading.Lock()

    def read(self) -> Lasting:
        """What an earlier scaler left; nothing where it cannot be read."""
        try:
            said = json.loads(read_plain(self._path, MAX_BYTES))
            spent, pools = said["spent"], list(said["pools"])
            timed = list(said.get("starts", []))  # scalers of before kept none
            if (most := max(len(pools), len(timed))) > MOST_KEPT:
                raise ValueError(f"it has {most:,} pools, of at most {MOST_KEPT:,}")  # noqa: TRY301
        except FileNotFoundError:
            return Lasting()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            why = f"{self._path}: {error}"
            log.error("what was spent and learned cannot be read; it is forgotten", error=why)  # noqa: TRY400
            return Lasting()
        lasting, work, starts = Lasting(), {}, {}
        with self._sound():
            lasting = Lasting(_spent(spent) if spent is not None else Spent())
        for pool in pools:
            with self._sound():
                of, learned = _work(pool)
                work[of] = learned
        for pool in timed:
            with self._sound():
                found = _STARTS.validate_python(pool)
                starts[found.pool, found.model, found.precision] = StartTimes(found.seconds)
        return replace(lasting, work=work, starts=starts)

    async def run(self, take: Callable[[], Lasting]) -> None:
        """Keeps what `take` gives, for ever."""
        while True:
            await self._pause(KEEP_SECONDS)
            await self.keep(take())

    async def keep(self, lasting: Lasting) -> None:
        """Writes it, in a thread; what the disk refuses is logged, and tried the next time."""
        if lasting == self._kept:
            return
        try:
            await asyncio.to_thread(self._write, lasting)
        except OSError as error:
            if not self._refused:
                why = f"{self._path}: {error}"
                log.error("what was spent and learned cannot be kept", error=why)  # noqa: TRY400
            self._refused = True
        else:
            self._kept, self._refused = lasting, False

    def _write(self, lasting: Lasting) -> None:
        text = json.dumps(_said(lasting))
        with self._one_writes:  # who ends may meet a write that was cut off and goes on
            write_whole(self._path, text.encode())

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Where a part is read that may not be sound: only that is forgotten."""
        try:
            yield
        except ValidationError as error:
            why = f"{self._path}: {error.errors()[0]['msg']}"
            log.error("a part of what was spent and learned is forgotten", error=why)  # noqa: TRY400


def _said(lasting: Lasting) -> dict[str, Any]:
    spent = lasting.spent
    return {
        "spent": {
            "days": spent.days,
            "wall": spent.wall,
            "behind_seconds": spent.behind_seconds,
        }
        if spent.days
        else None,
        "pools": [
            {
                "pool": pool,
                "model": model,
                "precision": precision,
                "correction": work.learned.correction,
                "gram": work.learned.fit.gram,
                "aims": work.learned.fit.aims,
                "weight": work.learned.fit.weight,
                "constants": work.learned.fit.constants,
                "lengths": work.lengths,
            }
            for (pool, model, precision), work in lasting.work.items()
        ],
        "starts": [
            {"pool": pool, "model": model, "precision": precision, "seconds": starts.seconds}
            for (pool, model, precision), starts in lasting.starts.items()
        ],
    }


def _spent(said: Any) -> Spent:
    found = _SPENT.validate_python(said)
    days = found.days or ((day_of(found.wall), found.usd),)
    return Spent(tuple(sorted(Day(*one) for one in days)), found.wall, found.behind_seconds)


def _work(said: Any) -> tuple[tuple[str, str, str], WorkMemory]:
    found = _POOL.validate_python(said)
    fit = Fit(found.gram, found.aims, found.weight, found.constants)
    learned = Learned(found.correction, fit, fit.capacity)
    work = WorkMemory(lengths=Lengths(*found.lengths), learned=learned)
    return (found.pool, found.model, found.precision), work
