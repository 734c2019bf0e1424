"""Money that was spent and what was learned outlive restarts, whatever the disk and the file do."""

import asyncio
import errno
import json
from dataclasses import replace

import pytest

from services.scaler.history import lasting
from services.scaler.history.lasting import KEEP_SECONDS, LastingFile
from services.scaler.policy.sizing.capacity import Fit, Learned, fitted
from services.scaler.policy.sizing.lengths import Lengths
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.money import DAY_SECONDS, Day, Spent
from services.scaler.policy.sizing.work import WorkMemory
from services.scaler.policy.start_times import KEPT_STARTS, StartTimes

A, B = ("a", "m", "int8"), ("b", "m", "int4")


def known(pool=A, usd=12.5):
    fit = fitted(Fit(), 8.0, 500.0, 100.0, step=0.02, seconds=60.0)
    lengths = Lengths(20.0, 4000.0, 21.0, 9000.0, 200.0, 428.0, 3.0, 40.0)
    work = WorkMemory(lengths=lengths, learned=Learned(0.9, fit, fit.capacity))
    return Lasting(
        Spent((Day(3, usd),), 3 * DAY_SECONDS + 60.0),
        {pool: work, B: WorkMemory()},
        {pool: StartTimes((7.5, 7.25)), B: StartTimes((60.0,))},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sizes.json"


async def test_what_was_kept_is_read_as_it_was(path):
    assert LastingFile(path).read() == Lasting()
    await LastingFile(path).keep(known())
    again = LastingFile(path).read()
    assert again == known()
    assert again.work[A].learned.capacity is not None
    await LastingFile(path).keep(Lasting())
    assert LastingFile(path).read() == Lasting()


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-1", "1e999", '"x"', "[]", "null"])
@pytest.mark.parametrize("at", ["usd", "correction", "weight"])
async def test_a_part_that_is_not_sound_is_forgotten_alone(path, at: str, figure: str):
    await LastingFile(path).keep(known())
    said = json.loads(path.read_text())
    if at == "usd":
        said["spent"]["days"][0][1] = "here"
    else:
        said["pools"][0][at] = "here"
    path.write_text(json.dumps(said).replace('"here"', figure))
    found = LastingFile(path).read()
    assert found.spent == (Spent() if at == "usd" else known().spent)
    assert found.work == ({} if at != "usd" else known().work) | {B: WorkMemory()}


async def test_what_a_scaler_of_before_kept_is_read_as_one_day(path):
    await LastingFile(path).keep(known())
    said = json.loads(path.read_text())
    for spent in ({"usd": 12.5}, {"days": [[3, 12.5]], "behind_seconds": 0.0}):
        said["spent"] = {**spent, "wall": 3 * DAY_SECONDS + 60.0}
        path.write_text(json.dumps(said))
        assert LastingFile(path).read() == known()


@pytest.mark.parametrize("seconds", [[-1.0], ["x"], [1.0] * (KEPT_STARTS + 1), None, 7])
async def test_starts_that_are_not_sound_are_forgotten_alone(path, seconds: object):
    await LastingFile(path).keep(known())
    said = json.loads(path.read_text())
    said["starts"][0]["seconds"] = seconds
    path.write_text(json.dumps(said))
    assert LastingFile(path).read() == replace(known(), starts={B: StartTimes((60.0,))})


async def test_a_file_of_before_has_no_starts(path):
    await LastingFile(path).keep(known())
    said = json.loads(path.read_text())
    del said["starts"]
    path.write_text(json.dumps(said))
    assert LastingFile(path).read() == replace(known(), starts={})


MANY = json.dumps({"spent": None, "pools": [0] * 2000})


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"spent": null}', "[" * 200_000, MANY])
def test_of_a_damaged_file_nothing_holds(path, text: str):
    path.write_text(text)
    assert LastingFile(path).read() == Lasting()


async def test_answers_of_no_tokens_are_not_believed(path):
    await LastingFile(path).keep(known())
    said = json.loads(path.read_text())
    said["pools"][0]["lengths"][4] = 0.0
    path.write_text(json.dumps(said))
    assert LastingFile(path).read().work.keys() == {B}


async def test_it_is_written_once_a_minute_and_only_where_it_has_changed(path, monkeypatch):
    written: list[bytes] = []
    monkeypatch.setattr(lasting, "write_whole", lambda _, data: written.append(data))
    paused: list[float] = []
    given = [known(), known(), known(usd=13.0)]

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) > len(given):
            raise asyncio.CancelledError

    turn = iter(given)
    with pytest.raises(asyncio.CancelledError):
        await LastingFile(path, pause=pause).run(lambda: next(turn))
    assert len(written) == 2
    assert set(paused) == {KEEP_SECONDS}


async def test_what_the_disk_refuses_is_written_the_next_time(path, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = LastingFile(path)
    with monkeypatch.context() as refused:
        refused.setattr(lasting, "write_whole", refuse)
        await file.keep(known())
    assert not path.exists()
    await file.keep(known())
    assert LastingFile(path).read() == known()
