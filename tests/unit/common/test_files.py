"""Files are whole or as they were, and a folder has one owner at a time."""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common import files
from services.common.config import ConfigError
from services.common.files import (
    FolderLock,
    exchanged_file,
    resolved,
    whole_file,
    whole_folder,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for data in (b"first", b"", b"last"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert names(path.parent) == ["file"]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from now on, in this order, without the random part of names."""
    done: list[str] = []
    sync, replace, rename = os.fsync, Path.replace, Path.rename

    def synced(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        done.append(f"sync {name.removeprefix('.').partition('.')[0]}")
        sync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return done


def refuse(*_: object) -> None:
    raise OSError("no room")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    monkeypatch.setattr(os if broken == "fsync" else Path, broken, refuse)
    with pytest.raises(OSError, match="no room"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_data_is_on_the_disk_before_the_name_is_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = watched(monkeypatch)
    write_whole(tmp_path / "file", b"data")
    assert done == ["sync file", "rename", f"sync {tmp_path.name}"]


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = {(tmp_path / name).stat().st_mode for name in ("whole", "plain")}
    assert len(modes) == 1


def test_two_at_once_do_not_share_an_unfinished_file(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as first, whole_file(tmp_path / "file") as second:
        assert first != second
        for unfinished in (first, second):
            assert unfinished.name.startswith(".file.")
            unfinished.write_text("text")
            assert not (tmp_path / "file").exists()
    assert names(tmp_path) == ["file"]


def test_a_file_that_is_given_up_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"), whole_file(tmp_path / "file") as unfinished:
        broken_off(unfinished)
    assert names(tmp_path) == []


def broken_off(path: Path) -> None:
    path.write_text("half")
    refuse()


def fill(folder: Path, text: str = "text") -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text(text)


def test_a_folder_is_there_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "folder"
    done = watched(monkeypatch)
    with whole_folder(path) as unfinished:
        fill(unfinished)
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "text"
    assert sorted(done[:3]) == ["sync file", "sync folder", "sync inner"]
    assert done[3:] == ["rename", "sync made"]
    assert names(path.parent) == ["folder"]


def test_a_folder_that_is_given_up_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"), whole_folder(tmp_path / "folder") as unfinished:
        broken_off(unfinished / "file")
    assert names(tmp_path) == []


def test_a_folder_that_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "folder") as second:
        fill(second, "second")
        with whole_folder(tmp_path / "folder") as first:
            fill(first, "first")
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "first"
    assert names(tmp_path) == ["folder"]


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(NotADirectoryError), whole_folder(tmp_path / "folder") as unfinished:
        fill(unfinished)
    assert names(tmp_path) == ["folder"]


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "state"
    lock = FolderLock(folder, "router")
    with pytest.raises(ConfigError, match=rf"state folder {folder}: another router uses it"):
        FolderLock(folder, "router")
    lock.close()
    FolderLock(folder, "router").close()


def test_an_owner_that_dies_lets_go(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from services.common.files import FolderLock
FolderLock(pathlib.Path({str(tmp_path)!r}), "router")
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -9
    FolderLock(tmp_path, "router").close()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"state folder .*taken"):
        FolderLock(tmp_path / "taken", "router")


def test_who_was_refused_holds_nothing_open(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "router")
    before = names(Path("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ConfigError):
            FolderLock(tmp_path, "router")
    assert len(names(Path("/proc/self/fd"))) == len(before)
    lock.close()


@pytest.mark.parametrize("at_once", ["exchange", "link"])
def test_a_file_is_exchanged_in_one_step_and_put_back_where_the_block_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    if at_once == "link":  # a file system that exchanges no files

        class Old:
            @staticmethod
            def renameat2(*_: object) -> int:
                ctypes.set_errno(errno.EINVAL)
                return -1

        monkeypatch.setattr(files, "_LIBC", Old)
    with exchanged_file(path, b"new") as before:
        assert before is not None
        assert (path.read_text(), before.read_text()) == ("new", "old")
    assert path.stat().st_mode & 0o777 == 0o640

    def refuse() -> None:
        with exchanged_file(path, b"newer"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is this very one
        refuse()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_put_there_while_a_file_is_put_back_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def outrun() -> None:
        with exchanged_file(path, b"new"):
            write_whole(path, b"newest")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is this very one
        outrun()
    assert path.read_text() == "newest"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_there_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    with exchanged_file(path, b"first") as before:
        assert before is None
    assert path.read_text() == "first"
    monkeypatch.setattr(Path, "exists", lambda _: False)  # it came this very moment
    with pytest.raises(FileExistsError), exchanged_file(path, b"second"):
        pass
    assert path.read_text() == "first"


def test_where_a_path_leads_is_told_of_one_that_leads_nowhere_too(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(tmp_path)
    (tmp_path / "round").symlink_to("round")
    assert resolved(tmp_path / "there" / "a") == tmp_path.resolve() / "a"
    assert resolved(tmp_path / "round" / "a") == tmp_path.resolve() / "round" / "a"
