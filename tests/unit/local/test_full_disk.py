"""What the stack does where its disk is full: it says so, and goes on."""

import errno
import io
from pathlib import Path

import pytest
from rich.console import Console

from services.local import children, status
from services.local.plan import StackError
from services.local.screen import Screen


@pytest.mark.parametrize(
    ("left", "said"),
    [(None, ""), (10**9, ""), (10**6, "is nearly full"), (0, "is full")],
)
def test_the_status_tells_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, left: int | None, said: str
) -> None:
    monkeypatch.setattr(status, "free_bytes", lambda _: left)
    notes = status._disk_notes(Path("state"))
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


def test_without_room_for_its_log_a_service_starts_without_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with children._fresh(tmp_path / "file" / "router.log") as output:
        assert output.name == "/dev/null"
    with children._fresh(tmp_path / "logs" / "router.log") as output:
        output.write(b"first")
    with children._fresh(tmp_path / "logs" / "router.log"):
        assert (tmp_path / "logs" / "router.previous.log").read_bytes() == b"first"


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, text)


def test_a_screen_that_cannot_be_written_to_ends_nothing() -> None:
    screen = Screen(Console(file=_Full()))
    with pytest.raises(OSError, match="a word"):
        screen.console.print("a word")
    screen.say("a word")
    screen.fail(StackError("a word", "another"))
