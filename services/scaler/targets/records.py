"""What is written down about each replica, so that the next scaler finds it again.

One folder for each replica below `<state folder>/replicas/`: `record.json`, `view/` (the model
repository it serves) and `server.log`. A record is replaced by renaming, so it is whole or absent.
When a replica ends, its log moves to `<state folder>/logs/`, where the newest are kept.
"""

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
import structlog
from pydantic import Field, TypeAdapter

from services.common.config import ConfigError
from services.common.durations import Moment
from services.common.files import FolderLock, resolved, write_whole
from services.scaler.ports import Replica
from services.scaler.targets import processes

log = structlog.get_logger()

KEPT_LOGS = 20

_Whole = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
_Port = Annotated[int, Field(ge=0, le=65_535)]

_REASONS = (
    re.compile(r"failed to load '[^']*' version \d+: (.*)"),
    re.compile(r"(taskset: .*)"),
    re.compile(r"^error: (.*)"),
)
"""Where a server's log says why it did not start, best first."""


@dataclass(frozen=True)
class Known:
    """A process: its id, and the tick it started at, which tells it from a later namesake."""

    pid: Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
    ticks: int


@dataclass(frozen=True)
class SlotReplica(Replica):
    """A replica on a slot of this host.

    Attributes:
        slot: index of its slot in the pool.
        fingerprint: of the settings it was started with.
        metrics_address: host:port of its page of metrics; empty in records of old.
    """

    max_in_flight: _Whole
    started_at: Moment
    slot: _Whole
    fingerprint: str
    metrics_address: str = ""


@dataclass(frozen=True)
class Record:
    """A replica's record. `server` is absent until it runs, `stubs` until it is ready.

    `python`: its model runs in Triton's Python backend, so there must be a stub. `draining`: it was
    told to finish what it has, and goes then.
    """

    replica: SlotReplica
    grpc_port: _Port
    metrics_port: _Port
    python: bool
    server: Known | None = None
    stubs: tuple[Known, ...] | None = None
    draining: bool = False


class Records:
    """The records below one state folder, which belongs to one scaler at a time."""

    def __init__(self, state_folder: Path) -> None:
        self._replicas = resolved(state_folder) / "replicas"
        self._logs = resolved(state_folder) / "logs"
        self._lock: FolderLock | None = None
        self._holding = threading.Lock()  # replicas are started in threads
        self._said = False

    def lock(self) -> None:
        """Takes the state folder for this process; a scaler that dies lets go of it.

        Raises:
            ConfigError: another scaler has it, or it cannot be written to.
        """
        folder = self._replicas.parent
        self._lock = FolderLock(folder, "scaler")
        try:
            self._make()
        except OSError as error:
            self.unlock()
            raise ConfigError("environment", [f"state folder {folder}: {error}"]) from error

    def unlock(self) -> None:
        """Lets go of the state folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def view(self, replica_id: str) -> Path:
        """The model repository that the replica serves."""
        return self._replicas / replica_id / "view"

    def temporary(self, replica_id: str) -> Path:
        """A folder for what its processes need for a while; made here."""
        folder = self._replicas / replica_id / "tmp"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def ids(self) -> list[str]:
        """The replicas that have a folder."""
        return [folder.name for folder in self._replicas.iterdir()]

    def log_file(self, replica_id: str) -> Path:
        """What the replica's processes print."""
        return self._replicas / replica_id / "server.log"

    def write(self, record: Record) -> None:
        """Writes the record in one piece.

        Raises:
            OSError: it could not be written, or the folder is another scaler's by now.
        """
        self._hold()
        data = json.dumps(asdict(record), indent=1).encode()
        write_whole(self._file(record.replica.id), data)

    def keep(self, record: Record) -> None:
        """Writes the record where it was moved or removed: its replica would be lost to the next.

        So is the lock of the folder made anew: another scaler would take the same replicas.

        Raises:
            OSError: it could not be written, or the folder is another scaler's by now.
        """
        self._hold()
        if not self._file(record.replica.id).exists():
            log.warning("a record was gone and is made anew", replica=record.replica.id)
            self._make()
            self.write(record)

    def _hold(self) -> None:
        """Takes the folder again that has the name now, where ours was moved or removed.

        Raises:
            OSError: it cannot be used, or another scaler has it; what we run is not on record then.
        """
        with self._holding:
            if self._lock is None or self._lock.in_place:
                return
            folder = self._replicas.parent
            try:
                before, self._lock = self._lock, FolderLock(folder, "scaler")
            except ConfigError as error:
                if not self._said:
                    log.error("the state folder is gone", error=str(error))  # noqa: TRY400
                self._said = True
                raise OSError(str(error)) from error
            before.close()
            self._said = False
            log.warning("the state folder's lock was gone and is made anew", folder=str(folder))

    def _file(self, replica_id: str) -> Path:
        return self._replicas / replica_id / "record.json"

    def _make(self) -> None:
        for own in (self._replicas, self._logs):
            own.mkdir(parents=True, exist_ok=True)
            own.chmod(0o700)  # what servers print is not for every user of this machine

    def read_all(self) -> Iterator[tuple[str, Record | None]]:
        """Every replica id that has a folder, with its record; None where that is not usable.

        Raises:
            OSError: it cannot be found out.
        """
        for folder in sorted(self._replicas.iterdir()):
            try:
                data = orjson.loads((folder / "record.json").read_bytes())
                record = _ADAPTER.validate_python(data)
                if record.replica.id != folder.name:
                    raise ValueError(f"it is that of {record.replica.id}")  # noqa: TRY301
            except (OSError, ValueError) as error:
                if isinstance(error, OSError):
                    processes.heed(error)
                log.warning("unusable record", replica=folder.name, error=str(error))
                yield folder.name, None
            else:
                yield folder.name, record

    def remove(self, replica_id: str) -> None:
        """Forgets the replica and keeps its log with the newest others.

        Raises:
            OSError: we lack descriptors or memory to do so.
        """
        try:
            self._keep_log(replica_id)
        except OSError as error:  # no reason to keep the replica, nor to end with it
            log.warning("a log could not be kept", replica=replica_id, error=str(error))
        folder = self._replicas / replica_id
        try:
            shutil.rmtree(folder)
        except OSError as error:
            processes.heed(error)
            shutil.rmtree(folder, ignore_errors=True)  # all that can be removed

    def _keep_log(self, replica_id: str) -> None:
        self._make()
        with contextlib.suppress(FileNotFoundError):
            self.log_file(replica_id).rename(self._logs / f"{replica_id}.log")
        for old in sorted(self._logs.iterdir(), key=_changed_at)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def last_error(self, replica_id: str) -> str:
        """The line of its log that says best why it did not start; empty if none does."""
        try:
            lines = self.log_file(replica_id).read_text("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        for sign in _REASONS:
            for line in reversed(lines):
                if found := sign.search(line):
                    return found[1].partition("\\n")[0].strip('" ')[:300]
        return ""


def _changed_at(path: Path) -> float:
    """When the file changed; long ago if it has just been removed, as by another thread."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


_ADAPTER = TypeAdapter(Record)
