"""The thread that writes the log: nobody waits for it, what is lost is counted."""

import os
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.common import log_lines
from services.common.log_lines import LogCollector, LogLines, Lost

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        try:
            os.close(end)
        except OSError:
            assert end == read  # a test closed it


def test_lines_are_written_in_their_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lost = Lost()
    lines = LogLines(write, lost)
    said = [b"%d\n" % n for n in range(1000)]
    for line in said:
        lines.write(line)
    assert lines.close(10)
    assert os.read(read, 2**20) == b"".join(said)
    assert lost == Lost()


def test_who_logs_does_not_wait_for_a_reader_that_never_reads(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lost = Lost()
    lines = LogLines(write, lost, max_bytes=10 * len(LINE))
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, LINE)
    except BlockingIOError:
        os.set_blocking(write, True)
    for _ in range(100):
        lines.write(LINE)
    assert lost.unread >= 90
    assert not lines.close(0.05)
    while not lines.close(0.05):  # who reads at last finds what was kept
        os.read(read, 2**20)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_somebody_made_non_blocking_is_written_to_all_the_same(
    pipe: tuple[int, int], *, blocking: bool
) -> None:
    read, write = pipe
    lost = Lost()
    os.set_blocking(write, blocking)
    lines = LogLines(write, lost)
    for _ in range(5000):
        lines.write(LINE)
    heard = b""
    while len(heard) < 5000 * len(LINE):
        heard += os.read(read, 2**20)
    assert lines.close(10)
    assert heard == 5000 * LINE
    assert lost == Lost()


def test_a_closed_pipe_loses_lines_and_fails_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    lost = Lost()
    lines = LogLines(write, lost)
    for _ in range(10):
        lines.write(LINE)
    assert lines.close(10)
    assert lost == Lost(failed=10)


def test_a_full_disk_loses_lines_and_fails_nobody() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    lost = Lost()
    lines = LogLines(full, lost)
    for _ in range(10):
        lines.write(LINE)
    assert lines.close(10)
    os.close(full)
    assert lost == Lost(failed=10)


def test_a_line_after_one_that_was_cut_off_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()
    room = [5]

    def write(_: int, data: bytes) -> int:
        if not room[0]:
            raise OSError("no room")
        part = bytes(data[: room[0]])
        room[0] -= len(part)
        written.extend(part)
        return len(part)

    monkeypatch.setattr(log_lines.os, "write", write)
    lost = Lost()
    lines = LogLines(-1, lost)
    lines.close(10)
    lines._write(b"first\nsecond\n")
    room[0] = 100
    lines._write(b"third\n")
    lines._write(b"fourth\n")
    assert bytes(written) == b"first\nthird\nfourth\n"
    assert lost == Lost(failed=2)


def test_what_is_lost_is_a_metric() -> None:
    registry = CollectorRegistry()
    registry.register(LogCollector(Lost(unread=3, failed=4, raw=5)))
    name = "pennyweight_log_lost_lines_total"
    assert registry.get_sample_value(name, {"why": "unread"}) == 3
    assert registry.get_sample_value(name, {"why": "failed"}) == 4
    assert registry.get_sample_value(name, {"why": "raw"}) == 5
