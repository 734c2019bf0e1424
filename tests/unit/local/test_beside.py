"""What a stack says holds nothing up, whoever reads it or not."""

import os
import pty
from collections.abc import Iterator
from typing import TextIO

import pytest

from services.local import beside
from services.local.beside import MAX_BYTES, console_beside
from services.local.screen import Screen


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Where it is read, and where it is written."""
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="utf-8") as stream:
        yield read, stream


def test_all_that_is_said_is_written(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    with console_beside(stream) as console:
        Screen(console).say("it ends — at last")
    assert os.read(read, 1000).decode() == "it ends — at last\n"
    os.close(read)


def test_a_reader_that_has_closed_ends_nothing(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    os.close(read)
    with console_beside(stream) as console:
        for _ in range(3):
            console.print("a row of the demo")
            Screen(console).say("a word")


def test_a_reader_that_does_not_read_holds_nothing_up(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "LAST_SECONDS", 0.0)
    read, stream = pipe
    words = "word " * 20
    with console_beside(stream) as console:
        for number in range(4 * MAX_BYTES // len(words)):
            Screen(console).say(f"{number} {words}")
    assert os.read(read, 2).decode() == "0 "
    os.close(read)


def test_a_terminal_is_still_one() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream, console_beside(stream) as console:
        assert console.is_terminal
    os.close(master)
