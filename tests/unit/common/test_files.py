"""Files are whole or as they were, and a folder has one owner at a time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common import files
from services.common.config import ConfigError
from services.common.files import FolderLock, sync_folder, unfinished_beside, write_new, write_whole


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for data in (b"first", b"", b"last"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert names(path.parent) == ["file"]


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
    done: list[str] = []

    def noting(what: str, real: Callable[..., object]) -> Callable[..., object]:
        def note(*args: object) -> object:
            done.append(what)
            return real(*args)

        return note

    monkeypatch.setattr(os, "fsync", noting("data", os.fsync))
    monkeypatch.setattr(Path, "replace", noting("rename", Path.replace))
    monkeypatch.setattr(files, "sync_folder", noting("folder", sync_folder))
    write_whole(tmp_path / "file", b"data")
    assert done == ["data", "rename", "folder", "data"]  # the last is the folder's


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = {(tmp_path / name).stat().st_mode for name in ("whole", "plain")}
    assert len(modes) == 1


def test_a_new_file_takes_no_others_place(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"mine")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"theirs")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_two_at_once_do_not_share_an_unfinished_file(tmp_path: Path) -> None:
    made = {unfinished_beside(tmp_path / "file") for _ in range(100)}
    assert len(made) == 100
    assert all(one.name.startswith(".file.") and one.parent == tmp_path for one in made)


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
