"""A file that changed is noticed, however it changed; one that did not is left alone."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.seen import SeenFiles

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("text")
    os.utime(path, OLD)
    return path


def seen(path: Path) -> SeenFiles:
    files = SeenFiles(time.time)
    assert files.read(path, 100) == b"text"
    assert not files.changed()
    return files


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("TEXT")
    os.utime(other, OLD)
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("another"),
        lambda path: path.unlink(),
        os.utime,
        replaced,
    ],
)
def test_a_change_is_noticed(path: Path, change: Callable[[Path], None]) -> None:
    files = seen(path)
    change(path)
    assert files.changed()


def test_a_change_within_one_tick_of_the_clock_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    files = seen(path)
    as_it_was = files._seen[path]
    path.write_text("TEXT")
    found = path.stat()
    same = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
    files._seen[path] = type(as_it_was)(same, as_it_was.digest, as_it_was.at)
    assert files.changed()


def test_an_old_file_is_not_read_again(path: Path) -> None:
    files = seen(path)
    was = files._seen[path]
    files._seen[path] = type(was)(was.stamp, b"other contents", was.at)
    assert not files.changed()


def test_a_file_that_appears_is_noticed(tmp_path: Path) -> None:
    files = SeenFiles(time.time)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "file", 100)
    assert not files.changed()
    (tmp_path / "file").write_text("text")
    assert files.changed()


def test_a_folder_and_what_is_in_it_can_be_watched(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    files = SeenFiles(time.time)
    files.note(folder)
    assert not files.changed()
    folder.mkdir()
    assert files.changed()
    (folder / "file").write_text("half")
    files = SeenFiles(time.time)
    files.note(folder)
    assert not files.changed()
    (folder / "file").write_text("complete")
    assert files.changed()


@pytest.mark.parametrize("most", [3, 4])
def test_a_file_that_is_too_large_is_an_error(path: Path, most: int) -> None:
    files = SeenFiles(time.time)
    if most < 4:
        with pytest.raises(OSError, match="larger than 3 bytes"):
            files.read(path, most)
    else:
        assert files.read(path, most) == b"text"


def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    files = SeenFiles(time.time)
    with pytest.raises(OSError, match="is no plain file"):
        files.read(tmp_path / "pipe", 100)
    files.note(tmp_path)
    assert not files.changed()


def refuse(_path: Path, _max_bytes: int) -> bytes:
    raise OSError(errno.EMFILE, "Too many open files")


def test_what_could_not_be_read_for_want_of_descriptors_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SeenFiles(time.time)
    with monkeypatch.context() as full:
        full.setattr("services.common.seen.read_plain", refuse)
        with pytest.raises(OSError, match="Too many"):
            files.read(path, 100)
    assert files.changed()
    assert files.read(path, 100) == b"text"
    assert not files.changed()


def test_what_cannot_be_looked_at_now_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "young"
    path.write_text("text")
    files = seen(path)
    with monkeypatch.context() as full:
        full.setattr("services.common.seen.read_plain", refuse)
        assert not files.changed()
    assert not files.changed()
