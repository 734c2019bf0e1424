"""Records of replicas: written whole, read again, also those of an earlier scaler."""

import errno
import json
import shutil
import stat

import pytest
from structlog.testing import capture_logs

from services.common.config import ConfigError
from services.scaler.pools.pool import Capacity
from services.scaler.targets.records import Known, Record, Records, SlotReplica
from services.scaler.targets.replica_processes import ReplicaProcesses

REPLICA = SlotReplica(
    id="small-cpu-0-abc",
    pool="small-cpu",
    slot=0,
    tier="small",
    model="m",
    precision="int8",
    capacity=Capacity.ON_DEMAND,
    max_in_flight=64,
    address="127.0.0.1:18101",
    started_at=1_700_000_000.5,
    fingerprint="0123456789abcdef",
)
RECORD = Record(REPLICA, 18101, 18201, python=True, server=Known(7, 70), stubs=(Known(8, 80),))

# As scalers have always written it: replicas outlive an upgrade.
WRITTEN = """\
{"replica": {"id": "small-cpu-0-abc", "pool": "small-cpu", "slot": 0, "tier": "small",
  "model": "m", "precision": "int8", "capacity": "on_demand", "max_in_flight": 64,
  "address": "127.0.0.1:18101", "started_at": 1700000000.5, "fingerprint": "0123456789abcdef"},
 "grpc_port": 18101, "metrics_port": 18201, "python": true,
 "server": {"pid": 7, "ticks": 70}, "stubs": [{"pid": 8, "ticks": 80}]}
"""


@pytest.fixture
def records(tmp_path):
    records = Records(tmp_path)
    records.lock()
    yield records
    records.unlock()


def test_what_replicas_leave_is_for_this_user_alone(records, tmp_path):
    (tmp_path / "logs").chmod(0o755)  # as earlier scalers made it
    records.unlock()
    records.lock()
    for name in ("replicas", "logs"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    folder = records.temporary(REPLICA.id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    records.remove(REPLICA.id)
    assert not folder.exists()


def test_what_is_written_is_read_again(records):
    records.write(RECORD)
    assert list(records.read_all()) == [(REPLICA.id, RECORD)]
    records.remove(REPLICA.id)
    assert list(records.read_all()) == []


def test_the_form_of_a_record_stays(records, tmp_path):
    folder = tmp_path / "replicas" / REPLICA.id
    folder.mkdir()
    (folder / "record.json").write_text(WRITTEN)
    assert list(records.read_all()) == [(REPLICA.id, RECORD)]
    records.write(RECORD)
    found, before = json.loads((folder / "record.json").read_text()), json.loads(WRITTEN)
    # What came later has a value where it is not said.
    before["replica"]["metrics_address"] = ""
    assert found == before | {"draining": False}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"replica": {}}', "[" * 100_000, WRITTEN])
def test_what_cannot_be_read_is_named_and_no_record(records, tmp_path, text):
    folder = tmp_path / "replicas" / "a-0-b"
    folder.mkdir()
    (folder / "record.json").write_text(text)
    assert list(records.read_all()) == [("a-0-b", None)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"pid": 7', '"pid": -5'),
        ('"pid": 7', f'"pid": {10**30}'),
        ('"slot": 0', '"slot": -1'),
        ('"max_in_flight": 64', f'"max_in_flight": {10**12}'),
        ('"started_at": 1700000000.5', '"started_at": 1e300'),
        ('"grpc_port": 18101', '"grpc_port": 70000'),
    ],
)
def test_figures_that_no_replica_has_make_no_record(records, tmp_path, before, after):
    folder = tmp_path / "replicas" / REPLICA.id
    folder.mkdir()
    assert before in WRITTEN
    (folder / "record.json").write_text(WRITTEN.replace(before, after))
    assert list(records.read_all()) == [(REPLICA.id, None)]


def test_a_state_folder_belongs_to_one_scaler(records, tmp_path):
    with pytest.raises(ConfigError, match="another scaler uses it"):
        Records(tmp_path).lock()


def test_a_log_that_cannot_be_kept_keeps_no_replica(records, tmp_path):
    records.write(RECORD)
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("a file in its place")
    records.remove(REPLICA.id)
    assert list(records.read_all()) == []


def test_what_was_moved_away_is_made_anew(records, tmp_path):
    records.write(RECORD)
    for name in ("replicas", "logs"):
        (tmp_path / name).rename(tmp_path / f"{name} moved")
    records.keep(RECORD)
    assert list(records.read_all()) == [(REPLICA.id, RECORD)]
    records.log_file(REPLICA.id).write_text("said")
    (tmp_path / "logs").rmdir()
    records.remove(REPLICA.id)
    assert (tmp_path / "logs" / f"{REPLICA.id}.log").read_text() == "said"
    for name in ("replicas", "logs"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


@pytest.mark.parametrize("begin", [Records.keep, Records.write], ids=["keep", "write"])
@pytest.mark.parametrize("gone", ["folder", "lock"])
def test_a_folder_that_was_removed_belongs_to_the_same_scaler_again(records, tmp_path, begin, gone):
    records.write(RECORD)
    if gone == "folder":
        shutil.rmtree(tmp_path)
    else:
        (tmp_path / "lock").unlink()
    begin(records, RECORD)
    with pytest.raises(ConfigError, match="another scaler uses it"):
        Records(tmp_path).lock()
    assert list(records.read_all()) == [(REPLICA.id, RECORD)]
    records.unlock()
    other = Records(tmp_path)
    other.lock()
    other.unlock()


def test_a_folder_that_another_scaler_took_meanwhile_is_left_to_it(records, tmp_path):
    records.write(RECORD)
    shutil.rmtree(tmp_path)
    other = Records(tmp_path)
    other.lock()
    with capture_logs() as said:
        for begin in (records.keep, records.keep, records.write):
            with pytest.raises(OSError, match="another scaler uses it"):
                begin(RECORD)
    assert [event["log_level"] for event in said] == ["error"]
    assert list(other.read_all()) == []
    other.unlock()
    records.keep(RECORD)
    assert list(records.read_all()) == [(REPLICA.id, RECORD)]


def test_a_record_that_is_there_is_left_as_it_is(records, tmp_path):
    records.write(RECORD)
    before = (tmp_path / "replicas" / REPLICA.id / "record.json").stat().st_ino
    records.keep(RECORD)
    assert (tmp_path / "replicas" / REPLICA.id / "record.json").stat().st_ino == before


def test_a_folder_that_cannot_be_used_is_let_go_of(tmp_path):
    (tmp_path / "replicas").touch()
    one, other = Records(tmp_path), Records(tmp_path)
    with pytest.raises(ConfigError, match="state folder"):
        one.lock()
    (tmp_path / "replicas").unlink()
    other.lock()
    other.unlock()


@pytest.mark.parametrize("below", ["", "x"])
async def test_a_folder_whose_link_leads_to_itself_is_named(tmp_path, below):
    link = tmp_path / "loop"
    link.symlink_to(link)
    host = ReplicaProcesses(link / below, {})
    with pytest.raises(ConfigError, match=f"state folder {link / below}"):
        await host.adopt(lambda *_: None)


def test_what_can_be_removed_of_a_replica_is(records, tmp_path, monkeypatch):
    records.write(RECORD)
    remove = shutil.rmtree

    def hindered(folder, **said):
        if not said:
            raise OSError(errno.EBUSY, "Device or resource busy")
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", hindered)
    records.remove(REPLICA.id)
    assert list(records.read_all()) == []


def test_a_replica_that_never_said_anything_has_no_log(records, tmp_path):
    records.write(RECORD)
    assert records.last_error(REPLICA.id) == ""
    with capture_logs() as said:
        records.remove(REPLICA.id)
    assert said == []
    assert list((tmp_path / "logs").iterdir()) == []
