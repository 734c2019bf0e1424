"""Takes up changes of the scaling file while the scaler runs, whole or not at all.

A change is taken once two looks in a row have found the same and nobody has the file open to write
it: a file that an editor or a copy still writes may be good up to where it has come. Leaves to the
fleet how its pools come to be what the file says, and to go back where its settings do not work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.common.config import MAX_BYTES, ConfigError, parse_document, unread
from services.common.durations import wall_clock
from services.common.files import above
from services.common.plain_files import is_being_written
from services.common.refusal import Refusal
from services.common.seen import SeenFiles
from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.pools.models import FILE
from services.scaler.pools.models import MAX_BYTES as MODEL_BYTES

log = structlog.get_logger()

LOOK_SECONDS = 1.0
MOST_LOOKS = 30
"""At a file that stands still and that somebody has open to write it: then it is taken."""


class ScalingFile:
    """One reading of the scaling file, and whether it changed since.

    Attributes:
        content: what was read last.
    """

    def __init__(
        self,
        path: Path,
        cores: Collection[int],
        *,
        gpus: Collection[int] | None = None,
        queries: bool | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """Nothing is read yet.

        Args:
            path: of the file.
            cores: that this machine has.
            gpus: the same, by index; None: not known.
            queries: whether somebody answers Prometheus queries; None: not known.
            wall: gives seconds since 1970.
        """
        self.path = path
        self._cores = cores
        self._gpus = gpus
        self._queries = queries
        self._wall = wall
        self._seen = SeenFiles(wall)
        self.content = b""

    def load(self) -> Scaling:
        """Reads and checks the file, and notes it and the model folders that it names.

        Raises:
            ConfigError: it cannot be used.
        """
        try:
            self.content = self._seen.read(self.path, MAX_BYTES)
            text = self.content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(self.path), [unread(error)]) from error
        document = parse_document(text, Scaling, source=str(self.path))
        for pool in document.content.pools.values():  # one that is missing may come
            if pool.repository is not None:
                self._seen.note(above(self.path) / pool.repository / pool.model / FILE)
        return Scaling.of(
            document,
            self.path,
            self._cores,
            gpus=self._gpus,
            queries=self._queries,
            read=self._read_model,
        )

    def _read_model(self, path: Path) -> bytes:
        return self._seen.read(path, MODEL_BYTES)

    @property
    def surroundings(self) -> Mapping[str, Any]:
        """What a content is checked against: arguments of `Scaling.of`, as JSON has them."""
        return {
            "path": str(self.path),
            "cores": sorted(self._cores),
            "gpus": None if self._gpus is None else sorted(self._gpus),
            "queries": self._queries,
        }

    def again(self) -> "ScalingFile":
        """A new reading of the same file."""
        return ScalingFile(
            self.path, self._cores, gpus=self._gpus, queries=self._queries, wall=self._wall
        )

    @property
    def hindered(self) -> bool:
        """Whether it could not be read because we lacked something ourselves."""
        return self._seen.hindered

    @property
    def changed(self) -> bool:
        """Whether the file or a model's configuration is not as it was."""
        return self._seen.changed()


@dataclass
class _Read:
    """What a new reading brought.

    Attributes:
        looks: at it since, which found the same.
    """

    file: ScalingFile
    found: Scaling | ConfigError
    looks: int = 0


async def _respected(_: bytes) -> bool:
    return False


class ScalingWatch:
    """Looks for changes of the scaling file; state of the process.

    Attributes:
        refusal: why what the file says now is not in force; None: it is.
    """

    def __init__(
        self,
        file: ScalingFile,
        adopt: Callable[[Scaling], None],
        metrics: Metrics,
        *,
        kept: Callable[[bytes], object] = lambda _: None,
        undone: Callable[[bytes], Awaitable[bool]] = _respected,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """Knows the reading that is in force.

        Args:
            file: what is in force.
            adopt: takes what the file says now.
            metrics: what is counted.
            kept: takes the file whole when it comes in force.
            undone: is given what was read, and says whether it was undone: then it is not taken.
            wall: gives seconds since 1970.
        """
        self.refusal: Refusal | None = None
        self._file = file
        self._waiting: _Read | None = None  # for a second look
        self._adopt = adopt
        self._kept = kept
        self._undone = undone
        self._metrics = metrics
        self._wall = wall

    async def run(self) -> None:
        """Looks every second. Runs for ever; the caller owns it."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Puts what has changed in force, if all of it is right."""
        read = await asyncio.to_thread(self._read_if_changed)
        if read is None:
            return
        if read.file.content and await self._undone(read.file.content):
            return  # looked at anew: what is there now may be another edit
        self._file = read.file
        if isinstance(read.found, ConfigError):
            self._refuse(read.found)
            return
        self.refusal = None
        self._metrics.policy_refused.set(0)
        self._adopt(read.found)
        self._kept(read.file.content)
        log.info("the scaling file is in force", file=str(read.file.path))

    def _read_if_changed(self) -> _Read | None:
        """What has changed, once it has stood still from one look to the next."""
        waiting, self._waiting = self._waiting, None
        if not self._file.changed:
            return None
        if waiting is not None and not waiting.file.changed:
            waiting.looks += 1
            if waiting.looks >= MOST_LOOKS or not is_being_written(self._file.path):
                return waiting
            self._waiting = waiting
            return None
        read = self._read(self._file.again())
        if read.file.hindered:  # which is tried again at each look
            return read
        self._waiting = read
        return None

    @staticmethod
    def _read(file: ScalingFile) -> _Read:
        try:
            return _Read(file, file.load())
        except ConfigError as error:
            return _Read(file, error)
        except Exception as error:  # noqa: BLE001 -- nothing in a file may end the scaler
            problem = f"cannot be read: {type(error).__name__}: {error}"
            return _Read(file, ConfigError(str(file.path), [problem]))

    def _refuse(self, error: ConfigError) -> None:
        self.refusal = Refusal.of(error, self.refusal, self._wall())
        self._metrics.policy_refusals.inc()
        self._metrics.policy_refused.set(1)
        log.error(
            "the changed scaling file is refused; what was in force stays",
            file=error.source,
            problems=error.problems,
        )
