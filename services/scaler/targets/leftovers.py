"""What dead replicas leave behind outside of their own folder, and how it is told from what lives.

A server that ends in order removes its shared memory and the folder that its Python backend makes
below /tmp; one that is killed does not, and a scaler that is killed with it cannot.
"""

import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from services.scaler.targets import processes
from services.scaler.targets.tritonserver import (
    REPLICA_VARIABLE,
    SHARED_MEMORY,
    shared_memory_prefix,
)

_TEMPORARY = Path("/tmp")  # noqa: S108 - where the backend makes it, whatever TMPDIR says
_BACKEND_FOLDER = re.compile(r"python_env_[A-Za-z0-9]{6}")
_REGION = re.compile(r"pennyweight_([A-Za-z0-9.-]+)_.*")
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
_SETTLED_SECONDS = 60.0
_PROC = Path("/proc")


def remove_temporary_folders(folder: Path = _TEMPORARY, now: float | None = None) -> list[Path]:
    """Removes the empty folders that Python backends made; return them. `now` is wall time.

    Who made one cannot be told. An empty one that is not quite new is in nobody's way but of a
    server that loads a model with a packed environment later on, which ours never do: so nothing
    is done while a server runs here that is not ours.
    """
    now = time.time() if now is None else now
    candidates = [path for path in folder.glob("python_env_*") if _is_old(path, now)]
    if not candidates or any(_strangers()):
        return []
    removed = []
    for path in candidates:
        try:
            path.rmdir()
        except OSError:
            continue  # in use, or gone
        removed.append(path)
    return removed


def remove_regions(known: Collection[str], folder: Path = SHARED_MEMORY) -> list[str]:
    """Removes the shared memory of replicas that nobody knows and no process uses; return names.

    `known` are the ids of replicas that have a record here.
    """
    prefixes = tuple(shared_memory_prefix(replica_id) for replica_id in known)
    lost = [
        path
        for path in folder.glob("pennyweight_*")
        if _REGION.fullmatch(path.name) and not path.name.startswith(prefixes) and _ours(path)
    ]
    if not lost:
        return []
    used = set(_mapped(folder))
    removed = []
    for path in lost:
        if str(path) not in used:
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed


def unfinished(folder: Path) -> Iterator[Path]:
    """What `services.common.files` had begun to write in a folder that is locked for us."""
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name):
            yield path


def _is_old(path: Path, now: float) -> bool:
    try:
        changed = path.stat().st_mtime
    except FileNotFoundError:
        return False
    named = _BACKEND_FOLDER.fullmatch(path.name) is not None
    return named and _ours(path) and now - changed > _SETTLED_SECONDS


def _ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _strangers() -> Iterator[int]:
    """Triton servers of this user that no scaler started."""
    for process in _PROC.iterdir():
        if not process.name.isdecimal() or not _ours(process):
            continue
        try:
            server = (process / "exe").readlink().name == "tritonserver"
            variables = (process / "environ").read_bytes() if server else b""
        except OSError as error:
            processes.heed(error)
            continue  # gone
        if server and f"{REPLICA_VARIABLE}=".encode() not in variables:
            yield int(process.name)


def _mapped(folder: Path) -> Iterator[str]:
    """Files of a folder that processes of this user have in their memory."""
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            maps = (process / "maps").read_text(errors="replace")
        except OSError as error:
            processes.heed(error)
            continue  # gone, or not ours to read
        for line in maps.splitlines():
            _, slash, rest = line.partition(f"{folder}/")
            if slash:
                yield f"{folder}/{rest}"
