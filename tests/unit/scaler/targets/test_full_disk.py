"""Replicas of this host where the disk is full, or something of one cannot be ended or watched."""

import errno
import os
from pathlib import Path

import pytest

from services.scaler.targets import processes, tritonserver
from services.scaler.targets.records import Known, Records
from services.scaler.targets.replica_processes import ReplicaProcesses
from services.scaler.targets.slots import StartFailed
from tests.making.replicas import pool
from tests.unit.scaler.targets.test_processes import Ready, recorded

FULL = OSError(errno.ENOSPC, "No space left on device")


def refuse(*_args: object, **_named: object) -> None:
    raise FULL


class Watched(Ready):
    """A replica whose stubs can be watched after so many times that they cannot."""

    def __init__(self, records: Records, replica_id: str, hindered: int = 0) -> None:
        super().__init__(records, replica_id)
        self.hindered = hindered

    def watch_stubs(self) -> bool:
        if self.hindered:
            self.hindered -= 1
            refuse()
        return True


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Known:
    """What takes the place of a replica's stub."""
    monkeypatch.setattr(tritonserver, "stub_pids", lambda _pid: (os.getpid(),))
    ticks = processes.started_ticks(os.getpid())
    assert ticks is not None
    return Known(os.getpid(), ticks)


@pytest.mark.parametrize("answer", [None, FULL], ids=["lives on", "full"])
async def test_what_cannot_be_ended_at_the_start_keeps_no_scaler_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: OSError | None
) -> None:
    async def kill(_variable: str, _value: str) -> bool:
        if answer is not None:
            raise answer
        return False

    monkeypatch.setattr(processes, "kill_family", kill)
    (tmp_path / "replicas" / "a-0-x").mkdir(parents=True)
    host = ReplicaProcesses(tmp_path, {})
    assert await host.adopt(lambda _id, _what: None) == []
    await host.close()
    assert (tmp_path / "replicas" / "a-0-x").exists(), "the next scaler tries again"


async def test_a_start_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, replica_id = recorded(tmp_path)
    host = ReplicaProcesses(tmp_path, {})

    def fail(*_args: object) -> None:
        raise StartFailed("it ended at once")

    monkeypatch.setattr(host, "_spawn", fail)
    with pytest.raises(StartFailed, match="it ended at once"):
        await host.start(replica_id, "a", pool(), 0)
    assert records.ids() == []


async def test_a_record_that_cannot_be_kept_says_nothing_of_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, replica_id = recorded(tmp_path)
    host = ReplicaProcesses(tmp_path, {})
    host._running[replica_id] = Ready(records, replica_id)  # type: ignore[assignment]
    monkeypatch.setattr(host._records, "keep", refuse)
    assert await host.is_ready(replica_id)


def test_stubs_that_cannot_be_watched_now_are_looked_for_again(tmp_path: Path, stub: Known) -> None:
    records, replica_id = recorded(tmp_path, server=Known(7, 70))
    host = ReplicaProcesses(tmp_path, {})
    host._running[replica_id] = running = Watched(records, replica_id, 1)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        host.note_ready(replica_id)
    assert running.record.stubs is None
    assert host.note_ready(replica_id)
    assert dict(records.read_all())[replica_id] == running.record
    assert running.record.stubs == (stub,)


def test_stubs_that_cannot_be_recorded_are_watched(
    tmp_path: Path, stub: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, replica_id = recorded(tmp_path, server=Known(7, 70))
    host = ReplicaProcesses(tmp_path, {})
    host._running[replica_id] = running = Watched(records, replica_id)  # type: ignore[assignment]
    monkeypatch.setattr(host._records, "write", refuse)
    assert host.note_ready(replica_id)
    assert running.record.stubs == (stub,)
