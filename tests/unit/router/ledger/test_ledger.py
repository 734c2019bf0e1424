"""Records reach the disk whole and together; a disk that refuses loses nothing it need not."""

import asyncio
import json
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pennyweight.ledger.reader import Unreadable, opened
from pennyweight.ledger.schema import LedgerRecord, OutcomeRecord
from pennyweight.ledger.sums import By, add_up
from services.common.config import ConfigError
from services.router.ledger import file as module
from services.router.ledger.file import FileLedger
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

    def numbers(self) -> list[int]:
        return [int(line["request_id"]) for line in self.lines()]


def numbered(number: int, text: str = "") -> OutcomeRecord:
    return outcome(str(number), corrected_digest=text)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "state/ledger")


@asynccontextmanager
async def running(book: Book) -> AsyncIterator[None]:
    task = asyncio.create_task(book.ledger.run())
    try:
        yield
    finally:
        book.ledger.close()
        await asyncio.wait_for(task, 10)


async def test_records_are_on_the_disk_when_the_ledger_has_closed(book: Book) -> None:
    records = [request(str(n), attempt(), attributes={"label": 'é\n"'}) for n in range(97)]
    records += [pair(), pair(kind="cached_pair"), outcome(rating=0.5)]
    async with running(book):
        for record in records:
            book.ledger.add(record)
    assert book.lines() == [plain(record) for record in records]
    assert (book.count("records"), book.count("lost")) == (100, 0)


async def test_records_are_written_without_waiting_for_the_end(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    async with running(book), asyncio.timeout(10):
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

    def slow(ledger: FileLedger, batch: list[bytes]) -> None:
        loop.call_soon_threadsafe(book.add, len(batch) + 1)
        write(ledger, batch)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(FileLedger, "_write", slow)
    book.add(1)
    await book.ledger.flush()
    monkeypatch.setattr(FileLedger, "_write", write)
    await book.ledger.flush()
    assert book.numbers() == [1, 2]


async def test_records_that_come_during_the_last_write_are_written_too(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FileLedger._write

    def slow(ledger: FileLedger, batch: list[bytes]) -> None:
        if not book.ledger._closed.is_set():
            asyncio.run_coroutine_threadsafe(last_words(), loop).result(10)
        write(ledger, batch)

    async def last_words() -> None:
        book.add(2)
        book.ledger.close()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    monkeypatch.setattr(FileLedger, "_write", slow)
    book.add(1)
    await asyncio.wait_for(book.ledger.run(), 10)
    assert book.numbers() == [1, 2]


async def test_what_the_disk_refuses_to_the_end_is_counted(book: Book) -> None:
    book.folder.rmdir()
    book.add(1)
    book.ledger.close()
    await asyncio.wait_for(book.ledger.run(), 10)
    assert (book.count("records"), book.count("lost")) == (0, 1)


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
