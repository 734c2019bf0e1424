"""Lines that are only added to: bounded, grouped, whole, and never in the way."""

import asyncio
import errno
import os

import pytest

from services.common import files
from services.scaler.history import journal
from services.scaler.history.journal import GAP, Journal, Limits, read

LIMITS = Limits(file_bytes=1 << 20, files=8)


class Count:
    def __init__(self):
        self.waiting = self.gone = 0

    def unwritten(self, lines):
        self.waiting = lines

    def lost(self, lines):
        self.gone += lines


@pytest.fixture
def count():
    return Count()


def full(monkeypatch):
    """A disk that takes half a line and then is full; returns how to empty it."""
    write = os.write

    def refuse(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.os, "write", refuse)
    return lambda: monkeypatch.setattr(journal.os, "write", write)


async def test_lines_are_read_newest_first_and_go_on_after_a_restart(tmp_path, count):
    for turn in range(2):
        one = Journal(tmp_path, LIMITS, count)
        one.add({"n": 2 * turn})
        one.add({"n": 2 * turn + 1})
        await one.flush()
    assert [line["n"] for line in read(tmp_path)] == [3, 2, 1, 0]
    assert len(list(tmp_path.iterdir())) == 1


async def test_a_disk_that_refuses_is_offered_one_part_of_what_waits(tmp_path, count, monkeypatch):
    one, offered, write = Journal(tmp_path, LIMITS, count), [], os.write

    def short(descriptor, data):
        offered.append(data)
        if len(offered) == 1:
            return write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "APPEND_BYTES", 100)
    monkeypatch.setattr(files.os, "write", short)
    for number in range(100):
        one.add({"n": number})
    await one.flush()
    assert [len(data) for data in offered] == [98, 88]
    assert all(isinstance(data, memoryview) for data in offered)
    monkeypatch.setattr(files.os, "write", write)
    await one.flush()
    assert [line["n"] for line in read(tmp_path)] == list(reversed(range(100)))


async def test_what_gathers_is_written_at_the_end_too(tmp_path, count):
    one = Journal(tmp_path, LIMITS, count)
    async with one.writing():
        one.add({"n": 1})
    assert [line["n"] for line in read(tmp_path)] == [1]


async def test_a_line_that_a_crash_tore_hurts_neither_those_before_nor_those_after(tmp_path, count):
    one = Journal(tmp_path, LIMITS, count)
    one.add({"n": 1})
    await one.flush()
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"n": 2, "wh')
    after = Journal(tmp_path, LIMITS, count)
    after.add({"n": 3})
    await after.flush()
    assert [line and line["n"] for line in read(tmp_path)] == [3, None, 1]


async def test_bytes_that_are_no_json_are_one_damaged_line(tmp_path, count):
    (tmp_path / "000000000007.jsonl").write_bytes(b'{"n": 1}\n\xff\x00\xfe\n[1]\n{"n": 2}\n')
    assert [line and line["n"] for line in read(tmp_path)] == [2, None, None, 1]


async def test_a_full_disk_keeps_lines_waiting_and_leaves_no_half_of_them(
    tmp_path, count, monkeypatch
):
    one = Journal(tmp_path, LIMITS, count)
    one.add({"n": 1})
    await one.flush()
    emptied = full(monkeypatch)
    one.add({"n": 2})
    await one.flush()
    assert count.waiting == 1
    assert [line["n"] for line in read(tmp_path)] == [1]
    assert [line["n"] for line in one.unwritten()] == [2]
    emptied()
    await one.flush()
    assert (count.waiting, count.gone) == (0, 0)
    assert [line["n"] for line in read(tmp_path)] == [2, 1]


async def test_what_is_given_up_is_counted_and_its_place_is_on_record(tmp_path, count, monkeypatch):
    monkeypatch.setattr(journal, "MAX_UNWRITTEN", 2)
    one = Journal(tmp_path, LIMITS, count, wall=lambda: 77.0)
    emptied = full(monkeypatch)
    for number in range(5):
        one.add({"n": number})
        await one.flush()
    assert count.gone == 3
    emptied()
    await one.flush()
    newest, before, gap = read(tmp_path)
    assert (newest["n"], before["n"]) == (4, 3)
    assert gap == {GAP: 3, "since": 77.0, "at": 77.0}
    one.add({"n": 5})
    await one.flush()
    assert len(list(read(tmp_path))) == 4  # the gap is told once


async def test_files_are_bounded_in_size_number_and_age(tmp_path, count):
    clock = [1_000_000_000.0]
    limits = Limits(file_bytes=20, files=3, seconds=100.0)
    one = Journal(tmp_path, limits, count, wall=lambda: clock[0])
    for number in range(10):
        one.add({"n": number, "fill": "x" * 20})
        await one.flush()
    assert [line["n"] for line in read(tmp_path)] == [9, 8, 7]
    for path in tmp_path.iterdir():
        os.utime(path, (clock[0], clock[0]))
    clock[0] += 101.0
    one.add({"n": 10, "fill": "x" * 20})
    await one.flush()
    assert [line["n"] for line in read(tmp_path)] == [10]


async def test_a_file_that_is_not_ours_is_left_alone(tmp_path, count):
    (tmp_path / "notes.jsonl").write_text("mine")
    one = Journal(tmp_path, LIMITS, count)
    one.add({"n": 1})
    await one.flush()
    assert [line["n"] for line in read(tmp_path)] == [1]
    assert (tmp_path / "notes.jsonl").read_text() == "mine"


async def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_a_line(
    tmp_path, count, monkeypatch
):
    write = os.write
    monkeypatch.setattr(journal.os, "write", lambda where, data: write(where, data[:3]))
    one = Journal(tmp_path, LIMITS, count)
    one.add({"n": 1})
    await one.flush()
    assert list(read(tmp_path)) == [{"n": 1}]


async def test_what_comes_and_is_given_up_while_lines_are_written_is_kept_and_told(
    tmp_path, count, monkeypatch
):
    monkeypatch.setattr(journal, "MAX_UNWRITTEN", 2)
    one = Journal(tmp_path, LIMITS, count)
    write, later = one._write, [3, 4, 5]

    def busy(data):
        write(data)
        while later:
            one.add({"n": later.pop(0)})

    monkeypatch.setattr(one, "_write", busy)
    for number in (1, 2):
        one.add({"n": number})
    await one.flush()
    await one.flush()
    found = list(read(tmp_path))
    assert [line["n"] for line in found if "n" in line] == [5, 4, 2, 1]
    assert [line[GAP] for line in found if GAP in line] == [count.gone]


async def test_what_a_full_disk_refused_is_tried_again_though_nothing_more_comes(
    tmp_path, monkeypatch
):
    class Told(Count):
        def __init__(self):
            super().__init__()
            self.news = asyncio.Queue()

        def unwritten(self, lines):
            self.news.put_nowait(lines)

    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0.001)
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.001)
    emptied, count = full(monkeypatch), Told()
    one = Journal(tmp_path, LIMITS, count)
    async with one.writing(), asyncio.timeout(5.0):
        one.add({"n": 1})
        assert await count.news.get() == 1
        emptied()
        while await count.news.get():
            pass
    assert [line["n"] for line in read(tmp_path)] == [1]


async def test_a_file_that_goes_meanwhile_is_passed_over(tmp_path, count, monkeypatch):
    one = Journal(tmp_path, Limits(file_bytes=1, files=8, seconds=100.0), count)
    one.add({"n": 1})
    await one.flush()
    there = journal._files
    gone = tmp_path / "000000000000.jsonl"
    monkeypatch.setattr(journal, "_files", lambda folder: [gone, *there(folder)])
    one.add({"n": 2})
    await one.flush()
    assert (count.waiting, [line["n"] for line in read(tmp_path)]) == (0, [2, 1])
