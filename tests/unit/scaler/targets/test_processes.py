"""What cannot be found out of a process is no sign that it is gone."""

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from services.scaler.targets import processes, tritonserver
from services.scaler.targets.records import Known, Record, Records
from services.scaler.targets.replica_processes import ReplicaProcesses
from services.scaler.targets.slots import EndFailed
from tests.making.replicas import Host, pool


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be opened any more."""

    def refuse(*_args: object, **_named: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    for name in ("read_text", "read_bytes", "readlink"):
        monkeypatch.setattr(Path, name, refuse)


ASKED = {
    "started": lambda: processes.started_ticks(os.getpid()),
    "command line": lambda: processes.command_line(os.getpid()),
    "family": lambda: list(processes.family("A", "b")),
    "stubs": lambda: tritonserver.stub_pids(os.getpid()),
}


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_want_of_descriptors_is_told(ask) -> None:
    with pytest.raises(OSError, match="Too many open files"):
        ask()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_watch_that_fails_gives_its_descriptor_back(full) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        processes.Watch.open(os.getpid(), 1, lambda: None)
    assert descriptors() == before


GONE = 2**22 + 1  # above what the kernel gives


def test_one_that_has_gone_is_gone() -> None:
    assert processes.started_ticks(GONE) is None
    assert processes.command_line(GONE) == ()
    assert processes.Watch.open(GONE, 1, lambda: None) is None
    processes._kill(GONE, "A", "b")
    processes.reap(GONE)


async def test_one_that_goes_meanwhile_needs_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_args: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(processes.signal, "pidfd_send_signal", gone)
    monkeypatch.setattr(processes, "_inherited", lambda *_args: True)
    ticks = processes.started_ticks(os.getpid())
    assert ticks is not None
    watch = processes.Watch.open(os.getpid(), ticks, lambda: None)
    assert watch is not None
    watch.send(signal.SIGTERM)
    watch.close()
    watch.send(signal.SIGTERM)
    processes._kill(os.getpid(), "A", "b")


def test_another_that_has_its_id_by_now_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[object] = []
    monkeypatch.setattr(processes.signal, "pidfd_send_signal", lambda *args: killed.append(args))
    processes._kill(os.getpid(), "A", "b")
    assert killed == []


async def test_a_family_that_cannot_be_killed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.0)
    monkeypatch.setattr(processes, "family", lambda *_args: iter([GONE]))
    async with asyncio.timeout(5.0):
        assert not await processes.kill_family("A", "b")


def recorded(folder: Path, **more: object) -> tuple[Records, str]:
    records = Records(folder)
    records.lock()
    records.unlock()
    replica = Host().replica("a-0-x", "a", pool(), 0)
    records.write(Record(replica, 1, 2, python=False, **more))  # type: ignore[arg-type]
    return records, replica.id


async def test_the_record_of_one_who_may_live_on_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, replica_id = recorded(tmp_path)
    host = ReplicaProcesses(tmp_path, {})
    answers = [OSError(errno.EMFILE, "Too many open files"), False, True]

    async def kill(_variable: str, _value: str) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return bool(answer)

    monkeypatch.setattr(processes, "kill_family", kill)
    for expected in (OSError, EndFailed):
        with pytest.raises(expected):
            await host.end(replica_id, gently=False)
        assert records.ids() == [replica_id]
    await host.end(replica_id, gently=False)
    assert records.ids() == []


async def test_a_record_that_cannot_be_read_now_is_no_reason_to_end_its_replica(
    tmp_path: Path, full: None
) -> None:
    records, replica_id = recorded(tmp_path, server=Known(os.getpid(), 1))
    with pytest.raises(OSError, match="Too many open files"):
        list(records.read_all())
    assert records.ids() == [replica_id]


def test_a_record_that_cannot_be_removed_now_is_no_removed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, replica_id = recorded(tmp_path)

    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            records.remove(replica_id)
    assert records.ids() == [replica_id]
    records.remove(replica_id)
    assert records.ids() == []
    records.remove(replica_id)


class Ready:
    """A replica that runs and is ready."""

    class client:  # noqa: N801
        @staticmethod
        async def is_ready() -> bool:
            return True

    def __init__(self, records: Records, replica_id: str) -> None:
        self.record = dict(records.read_all())[replica_id]


async def test_a_replica_whose_record_was_removed_is_recorded_again(tmp_path: Path) -> None:
    records, replica_id = recorded(tmp_path)
    host = ReplicaProcesses(tmp_path, {})
    host._running[replica_id] = running = Ready(records, replica_id)  # type: ignore[assignment]
    shutil.rmtree(tmp_path / "replicas")
    assert await host.is_ready(replica_id)
    assert list(records.read_all()) == [(replica_id, running.record)]


async def test_memory_that_cannot_be_protected_now_says_nothing_of_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_replica_id: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tritonserver, "protect_shared_memory", refuse)
    records, replica_id = recorded(tmp_path)
    host = ReplicaProcesses(tmp_path, {})
    host._running[replica_id] = Ready(records, replica_id)  # type: ignore[assignment]
    assert await host.is_ready(replica_id)
