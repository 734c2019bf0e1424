"""The services as child processes: started on a leash, logged to files, ended for certain."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from services.common.config import ConfigError
from services.common.files import LOCK, FolderLock, FolderTaken
from services.local.plan import ROOT, Service, StackError

LEASH = Path(__file__).with_name("leash.py")
SHOWN_LINES = 15
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
REPLICA_VARIABLE = "PENNYWEIGHT_REPLICA_ID"


class Child:
    """One service as a process in a session of its own, so that Ctrl-C reaches us alone."""

    def __init__(self, service: Service, log: Path, process: asyncio.subprocess.Process) -> None:
        self.service = service
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, service: Service, logs: Path) -> "Child":
        """Starts the service with its log in `<logs>/<name>.log`, without one on a full disk."""
        log = logs / f"{service.name}.log"
        leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()))
        with _fresh(log) as output:
            process = await asyncio.create_subprocess_exec(
                *(*leash, sys.executable, "-m", service.module),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=service.environment,
                start_new_session=True,
            )
        return cls(service, log, process)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs; negative after a signal."""
        return self._process.returncode

    async def ended(self) -> int:
        """Waits for its end. Returns the exit code."""
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal if it still runs."""
        if self.code is None:
            self._process.send_signal(number)

    def last_lines(self) -> str:
        """The end of its log."""
        try:
            text = self.log.read_text("utf-8", errors="replace")
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "\n".join(text.splitlines()[-SHOWN_LINES:])


def lock_state(state: Path) -> FolderLock:
    """Takes the state folder for this stack, until it is closed or the process ends.

    Raises:
        StackError: another stack has it, or it cannot be written to.
    """
    try:
        return FolderLock(state, "stack")
    except FolderTaken:
        hint = "Stop that one, or choose another folder with --state."
        raise StackError(f"Another stack uses the folder {state}.", hint) from None
    except ConfigError as error:
        raise StackError(f"The state folder {state} cannot be used.", str(error)) from error


def is_held(state: Path, owner: str) -> bool:
    """Whether a service has its state folder; False where nobody can tell."""
    if not (state / LOCK).exists():
        return False
    try:
        FolderLock(state, owner).close()
    except FolderTaken:
        return True
    except ConfigError:
        pass
    return False


def _fresh(log: Path) -> BinaryIO:
    """An empty log file; what an earlier start wrote is kept as ``<name>.previous.log``.

    A service starts also where there is no room for one, and then nothing is kept of its log.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        return log.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def recorded_replicas(scaler_state: Path) -> list[str]:
    """Ids of the replicas that a scaler keeps, or that its crash left."""
    folder = scaler_state / "replicas"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def end_replicas(scaler_state: Path) -> list[str]:
    """Kills what a scaler that could not do so itself left running, with its shared memory.

    Replicas outlive a scaler by design; only those recorded below its state folder are ended, and
    none while another scaler has that folder. Returns the ids of those that were there.
    """
    ids = recorded_replicas(scaler_state)
    if not ids or not (scaler_state / LOCK).exists():
        return []
    try:
        lock = FolderLock(scaler_state, "scaler")
    except FolderTaken:
        return []
    with contextlib.closing(lock):
        found = [(process, name) for process, name in _processes_of_replicas() if name in ids]
        for process, _ in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([process for process, _ in found], timeout=10)
        for name in ids:
            for region in SHARED_MEMORY.glob(f"pennyweight_{name}_*"):
                region.unlink(missing_ok=True)
    return sorted({name for _, name in found})


def _processes_of_replicas() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        try:
            name = process.environ().get(REPLICA_VARIABLE)
        except psutil.Error:
            continue  # gone, or somebody else's
        if name:
            yield process, name
