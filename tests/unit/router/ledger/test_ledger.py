"""Records reach the disk whole and together; a disk that refuses loses nothing it need not."""

import asyncio
import json
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pennyweight.ledger.lines import Unreadable
from pennyweight.ledger.reader import opened
from pennyweight.ledger.schema import LedgerRecord, OutcomeRecord
from pennyweight.ledger.sums import By, add_up
from services.common import files
from services.common.config import ConfigError
from services.router.ledger import file as module
from services.router.ledger.file import FileLedger
from services.router.ledger.mark import Mark
from services.router.metrics import Metrics
from tests.making.ledger import attempt, outcome, pair, plain, request


class Book:
    """A ledger in a folder, with its metrics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.ledger = FileLedger(folder, "router-1", Metrics(self.registry))

    def count(self, name: str) -> float:
        value = self.registry.get_sample_value(f"pennyweight_router_ledger_{name}_total")
        assert value is not None
        return value

    def lines(self) -> list[dict]:
        return [
            json.loads(line)
            for file in sorted(self.folder.glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.ledger.add(numbered(number))

    def marks(self) -> list[Path]:
        return list(self.folder.glob(".*.mark"))

    def numbers(self) -> list[int]:
        return [int(line["request_id"]) for line in self.lines()]


def numbered(number: int, text: str = "") -> OutcomeRecord:
    return outcome(str(number), corrected_digest=text)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "state/ledger")


@dataclass
class Disk:
    """One that hangs until it is let go."""

    monkeypatch: pytest.MonkeyPatch
    hangs: threading.Event = field(default_factory=threading.Event)
    works: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(module.os, "fsync", self.fsync)

    def fsync(self, _descriptor: int) -> None:
        self.hangs.set()
        assert self.works.wait(10)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    return Disk(monkeypatch)


async def test_records_are_on_the_disk_when_the_ledger_has_closed(book: Book) -> None:
    records = [request(str(n), attempt(), attributes={"label": 'é\n"'}) for n in range(97)]
    records += [pair(), pair(kind="cached_pair"), outcome(rating=0.5)]
    async with book.ledger.writing():
        for record in records:
            book.ledger.add(record)
    assert book.lines() == [plain(record) for record in records]
    assert (book.count("records"), book.count("lost")) == (100, 0)


async def test_records_are_written_without_waiting_for_the_end(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    async with book.ledger.writing(), asyncio.timeout(10):
        book.add(1)
        while not book.lines():
            await asyncio.sleep(0.005)
        book.add(2)
    assert book.numbers() == [1, 2]


async def test_a_batch_is_one_write_and_one_fsync(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    for number in range(50):
        book.add(number)
    await book.ledger.flush()
    await book.ledger.flush()
    assert len(synced) == 1
    assert len(book.lines()) == 50


def test_what_is_written_can_be_read(book: Book) -> None:
    async def write() -> None:
        for record in (request("1", attempt()), pair(), outcome(), request("2")):
            book.ledger.add(record)
        await book.ledger.flush()

    asyncio.run(write())
    with opened(book.folder) as ledger:
        (sums,) = add_up(ledger, By.ROUTE)
        assert ledger.unreadable == Unreadable()
        assert ledger.records("chat", ("pair",)) == [plain(pair())]
    assert (sums.requests, sums.cached, sums.paid, sums.baseline) == (2, 1, 3, 80)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` fail, as on a full disk, and may be cut short before."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_tears_no_line_and_loses_nothing(book: Book) -> None:
    book.add(0)
    await book.ledger.flush()
    for number in range(1, 100):
        book.ledger.add(numbered(number, "x" * 100))
    with largest_file(2000):
        await book.ledger.flush()
        assert book.numbers() == [0]
        assert book.count("records") == 1
        book.add(100)
        await book.ledger.flush()
    await book.ledger.flush()
    assert book.numbers() == list(range(101))
    assert (book.count("records"), book.count("lost")) == (101, 0)


async def test_a_disk_that_refuses_is_offered_one_part_of_what_waits(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Any] = []
    write = module.os.write

    def short(descriptor: int, data: Any) -> int:
        if len(data) < 100:  # the ledger's mark
            return write(descriptor, data)
        offered.append(data)
        if len(offered) == 1:
            return write(descriptor, data[:200])
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "APPEND_BYTES", 1000)
    monkeypatch.setattr(module.os, "write", short)
    for number in range(100):
        book.ledger.add(numbered(number, "x" * 100))
    await book.ledger.flush()
    assert len(offered) == 2
    assert all(isinstance(data, memoryview) and len(data) <= 1000 for data in offered)
    assert len(offered[1]) == len(offered[0]) - 200
    assert book.numbers() == []
    monkeypatch.setattr(module.os, "write", write)
    await book.ledger.flush()
    assert book.numbers() == list(range(100))
    assert (book.count("records"), book.count("lost")) == (100, 0)


async def test_lines_that_wait_are_bounded_in_bytes_and_the_newest_stay(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.folder.rmdir()
    book.folder.write_text("a file in its place")
    monkeypatch.setattr(module, "MAX_UNWRITTEN_BYTES", 10_000)
    for number in range(20):
        book.ledger.add(numbered(number, "x" * 2000))
        await book.ledger.flush()
    book.folder.unlink()
    await book.ledger.flush()
    assert book.numbers() == [16, 17, 18, 19]
    assert (book.count("records"), book.count("lost")) == (4, 16)
    for number in range(20, 24):  # what was written counts no more
        book.ledger.add(numbered(number, "x" * 2000))
    await book.ledger.flush()
    assert book.count("lost") == 16


async def test_a_folder_that_is_gone_keeps_records_until_it_is_back(book: Book) -> None:
    book.folder.rmdir()
    book.folder.write_text("a file in its place")
    book.add(1)
    await book.ledger.flush()
    assert book.count("records") == 0
    book.folder.unlink()
    book.folder.mkdir()
    await book.ledger.flush()
    assert book.numbers() == [1]


@pytest.mark.parametrize("meanwhile", ["nothing", "another"])
async def test_a_folder_that_is_moved_away_is_made_anew(book: Book, meanwhile: str) -> None:
    def add(number: int) -> None:
        book.ledger.add(request(str(number), sequence=book.ledger.number()))

    add(1)
    await book.ledger.flush()
    moved = book.folder.rename(book.folder.with_name("moved"))
    if meanwhile == "another":
        book.folder.mkdir()
    book.ledger.number()  # it is answered, and its record is still to come
    add(2)
    await book.ledger.flush()
    assert book.numbers() == [2]
    assert book.count("lost") == 0
    (mark,) = book.marks()  # a kill from here on leaves a gap where the ledger is now
    assert json.loads(mark.read_bytes()) | {"time": 0} == {"answered": 3, "written": 2, "time": 0}
    assert Book(moved).count("gaps") == 0
    assert list(moved.glob(".*.mark")) == []


async def test_a_folder_that_is_moved_at_the_end_has_no_gap(book: Book) -> None:
    async with book.ledger.writing():
        book.ledger.add(request("1", sequence=book.ledger.number()))
        await book.ledger.flush()
        book.ledger.number()
        book.ledger.add(request("2"))
        await book.ledger.flush()
        moved = book.folder.rename(book.folder.with_name("moved"))
    Book(moved)
    assert list(moved.glob(".*.mark")) == []


async def test_what_waits_for_the_disk_is_shown(book: Book) -> None:
    def refused() -> float | None:
        return book.registry.get_sample_value("pennyweight_router_ledger_refused")

    book.folder.rmdir()
    book.folder.write_text("a file in its place")
    book.add(1, 2)
    await book.ledger.flush()
    assert refused() == 2
    book.folder.unlink()
    await book.ledger.flush()
    assert refused() == 0
    assert book.numbers() == [1, 2]


@pytest.mark.parametrize("work", ["_render", "_write"])
async def test_a_thread_that_cannot_be_started_ends_and_loses_nothing(
    book: Book, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(module, "MAX_COMMIT_SECONDS", 0.0)
    to_thread, missed = asyncio.to_thread, asyncio.Event()

    async def hindered(function: Any, *args: Any) -> Any:
        if function.__name__ == work and not missed.is_set():
            book.add(2)  # comes meanwhile
            missed.set()
            raise RuntimeError("can't start new thread")
        return await to_thread(function, *args)

    monkeypatch.setattr(module.asyncio, "to_thread", hindered)
    with capture_logs() as logs:
        async with book.ledger.writing():
            book.add(0, 1)
            await missed.wait()
            async with asyncio.timeout(30):
                while book.count("records") < 3:
                    await asyncio.sleep(0)
            book.add(3)
    assert book.numbers() == [0, 1, 2, 3]
    assert book.count("lost") == 0
    assert [line["event"] for line in logs] == ["the ledger cannot be written"]
    assert "RuntimeError" in logs[0]["error"]


async def test_records_that_no_thread_could_make_show_as_waiting(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hindered(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.asyncio, "to_thread", hindered)
    book.add(0, 1)
    await book.ledger.flush()
    assert book.registry.get_sample_value("pennyweight_router_ledger_refused") == 2


async def test_what_cannot_be_kept_is_counted_and_the_newest_stay(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 10)
    for number in range(25):
        book.add(number)
    assert book.count("lost") == 15
    await book.ledger.flush()
    assert book.numbers() == list(range(15, 25))


async def test_records_that_come_during_a_write_are_in_the_next_one(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FileLedger._write

    def slow(ledger: FileLedger, batch: Sequence[Any], answered: int) -> None:
        loop.call_soon_threadsafe(book.add, len(batch) + 1)
        write(ledger, batch, answered)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(FileLedger, "_write", slow)
    book.add(1)
    await book.ledger.flush()
    monkeypatch.setattr(FileLedger, "_write", write)
    await book.ledger.flush()
    assert book.numbers() == [1, 2]


async def test_records_that_come_during_the_last_write_are_written_too(
    book: Book, disk: Disk
) -> None:
    async with book.ledger.writing():
        book.add(1)
        await asyncio.to_thread(disk.hangs.wait, 10)
        book.add(2)
        asyncio.get_running_loop().call_later(0.05, disk.works.set)  # after the block is left
    assert book.numbers() == [1, 2]


async def test_records_are_made_while_the_disk_hangs(book: Book, disk: Disk) -> None:
    made = threading.Event()

    def make() -> LedgerRecord:
        made.set()
        return numbered(2)

    async with book.ledger.writing():
        book.add(1)
        await asyncio.to_thread(disk.hangs.wait, 10)
        book.ledger.add(make)
        assert await asyncio.to_thread(made.wait, 10)
        disk.works.set()
    assert book.numbers() == [1, 2]


async def test_what_the_disk_refuses_to_the_end_is_counted(book: Book) -> None:
    book.folder.rmdir()
    book.folder.write_text("a file in its place")
    async with book.ledger.writing():
        book.add(1)
    assert (book.count("records"), book.count("lost")) == (0, 1)


class Killed:
    """What a process that was killed has left in a folder."""

    def __init__(self, folder: Path, *, answered: int, written: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mark = Mark(folder, "router-1-4711-a1b2c3")
        mark.put(answered=answered, written=written, wall=1_795_880_539.123)
        mark.close(complete=False)


async def test_the_next_router_puts_the_gap_of_a_killed_one_on_record(tmp_path: Path) -> None:
    Killed(tmp_path, answered=495, written=427)
    book = Book(tmp_path)
    async with book.ledger.writing():
        pass
    (line,) = book.lines()
    assert line.pop("time")
    assert line == {
        "kind": "gap",
        "schema": 2,
        "process": "router-1-4711-a1b2c3",
        "last_seen": "2026-11-28T15:42:19.123Z",
        "requests": 495,
        "missing": 68,
    }
    assert book.count("gaps") == 68
    assert book.marks() == []  # it is on record once
    with opened(tmp_path) as ledger:
        assert ledger.gaps() == {"router-1-4711-a1b2c3": 68}


async def test_a_gap_stays_marked_until_it_is_on_record(tmp_path: Path) -> None:
    def refuses(_descriptor: int) -> None:
        raise OSError("no space left")

    Killed(tmp_path, answered=5, written=3)
    unwritten = Book(tmp_path)
    assert unwritten.count("gaps") == 2
    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(module.os, "fsync", refuses)
        async with unwritten.ledger.writing():
            pass
    assert unwritten.lines() == []
    book = Book(tmp_path)
    async with book.ledger.writing():
        pass
    assert [line["missing"] for line in book.lines()] == [2]


async def test_of_routers_that_start_together_one_puts_a_gap_on_record(tmp_path: Path) -> None:
    Killed(tmp_path, answered=5, written=3)
    one, other = Book(tmp_path), Book(tmp_path)
    async with one.ledger.writing(), other.ledger.writing():
        pass
    assert [line["missing"] for line in one.lines()] == [2]
    assert (one.count("gaps"), other.count("gaps")) == (2, 0)
    assert one.marks() == []


async def test_a_gap_that_is_given_up_for_want_of_room_stays_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNWRITTEN", 2)
    Killed(tmp_path, answered=5, written=3)
    full = Book(tmp_path)
    full.add(1, 2)
    async with full.ledger.writing():
        pass
    assert full.numbers() == [1, 2]
    book = Book(tmp_path)
    async with book.ledger.writing():
        pass
    assert [line["missing"] for line in book.lines() if line["kind"] == "gap"] == [2]


async def test_one_that_was_killed_before_it_answered_leaves_no_gap(tmp_path: Path) -> None:
    Killed(tmp_path, answered=0, written=0)
    book = Book(tmp_path)
    async with book.ledger.writing():
        pass
    assert book.lines() == []


@pytest.mark.parametrize("said", [b"", b"\xff{", b"{}", b"[]"])
async def test_a_mark_that_says_nothing_is_a_gap_of_unknown_size(
    tmp_path: Path, said: bytes
) -> None:
    (tmp_path / ".router-1.mark").write_bytes(said)
    book = Book(tmp_path)
    async with book.ledger.writing():
        pass
    (line,) = book.lines()
    assert (line["process"], line["last_seen"]) == ("router-1", "")
    assert (line["requests"], line["missing"]) == (0, 0)
    assert book.marks() == []
    with opened(tmp_path) as ledger:
        assert ledger.gaps() == {"router-1": 0}


async def test_one_that_is_killed_on_a_disk_that_was_full_all_along_leaves_a_gap(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as disk:
        disk.setattr(module.os, "pwrite", refuses)
        disk.setattr(module.os, "write", refuses)
        book.ledger.add(request("1", sequence=book.ledger.number()))
        await book.ledger.flush()
        book.ledger._mark.close(complete=False)  # type: ignore[union-attr] -- as a kill does
    following = Book(book.folder)
    async with following.ledger.writing():
        pass
    assert [line["kind"] for line in following.lines()] == ["gap"]


async def test_a_router_that_lives_has_no_gap(tmp_path: Path) -> None:
    living = Book(tmp_path)
    living.ledger.number()
    living.ledger.add(request("1"))
    living.ledger.number()
    await living.ledger.flush()
    assert Book(tmp_path).count("gaps") == 0


async def test_one_that_ends_with_all_written_leaves_no_mark(book: Book) -> None:
    async with book.ledger.writing():
        for number in range(3):
            book.ledger.add(request(str(number), sequence=book.ledger.number()))
    assert [line["sequence"] for line in book.lines()] == [1, 2, 3]
    assert book.marks() == []
    assert Book(book.folder).count("gaps") == 0


async def test_what_the_disk_refused_to_the_end_is_a_gap_to_the_next(book: Book) -> None:
    async with book.ledger.writing():
        book.ledger.add(request("1", sequence=book.ledger.number()))
        await book.ledger.flush()
        with largest_file(1500):
            for number in range(2, 5):
                book.ledger.add(request(str(number), sequence=book.ledger.number()))
            await book.ledger.flush()
            book.ledger._lines.clear()  # as many as it would give up at the end
    assert Book(book.folder).count("gaps") == 3


async def test_a_slow_disk_is_left_at_rest(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    waits: list[float] = []

    def fsync(_descriptor: int) -> None:
        nonlocal now
        now += 0.1

    async def waited(event: asyncio.Event, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(module.os, "fsync", fsync)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "set_within", waited)
    async with book.ledger.writing(), asyncio.timeout(10):
        for number in range(3):
            book.add(number)
            while len(book.lines()) <= number:
                await asyncio.sleep(0.001)
    assert waits[0] == module.COMMIT_SECONDS
    assert waits[-1] == pytest.approx(module.REST * 0.1)


async def test_what_comes_after_the_end_is_counted(book: Book) -> None:
    async with book.ledger.writing():
        book.add(1)
    book.add(2)
    assert (book.count("records"), book.count("lost")) == (1, 1)


def test_each_process_writes_files_of_its_own(tmp_path: Path) -> None:
    one, other = Book(tmp_path), Book(tmp_path)

    async def write() -> None:
        for book in (one, other):
            book.add(1)
            await book.ledger.flush()

    asyncio.run(write())
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="ledger folder"):
        Book(tmp_path / "file/ledger")


async def test_a_record_is_made_beside_the_requests(book: Book) -> None:
    made_in: list[int] = []

    def make() -> LedgerRecord:
        made_in.append(threading.get_ident())
        return numbered(7)

    book.ledger.add(make)
    assert made_in == []
    await book.ledger.flush()
    assert book.numbers() == [7]
    assert made_in != [threading.get_ident()]


async def test_a_record_that_cannot_be_made_costs_no_other(book: Book) -> None:
    def broken() -> LedgerRecord:
        raise ValueError("the text of an answer")

    with capture_logs() as logs:
        book.add(1)
        book.ledger.add(broken)
        book.add(2)
        await book.ledger.flush()
    assert book.numbers() == [1, 2]
    assert (book.count("records"), book.count("lost")) == (2, 1)
    assert "the text of an answer" not in str(logs)
