"""What dead replicas leave is removed, what anybody uses is not."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.scaler.targets import leftovers
from services.scaler.targets.leftovers import (
    remove_regions,
    remove_temporary_folders,
    unfinished,
)


@pytest.fixture
def alone(monkeypatch):
    """No server of others runs on this machine."""
    monkeypatch.setattr(leftovers, "_strangers", lambda: iter(()))


def made(folder, name, changed, inside=""):
    path = folder / name
    path.mkdir()
    if inside:
        (path / inside).touch()
    os.utime(path, (changed, changed))
    return path


def test_old_empty_folders_of_backends_are_removed(tmp_path, alone):
    old = made(tmp_path, "python_env_a1B2c3", changed=1000)
    kept = [
        made(tmp_path, "python_env_a1B2c4", changed=1000, inside="bin"),
        made(tmp_path, "python_env_a1B2c5", changed=1950),
        made(tmp_path, "python_env_of_mine", changed=1000),
        made(tmp_path, "another", changed=1000),
    ]
    assert remove_temporary_folders(tmp_path, now=2000) == [old]
    assert not old.exists()
    assert all(path.exists() for path in kept)


def test_nothing_is_removed_beside_a_server_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "_strangers", lambda: iter((7,)))
    old = made(tmp_path, "python_env_a1B2c3", changed=1000)
    assert remove_temporary_folders(tmp_path, now=2000) == []
    assert old.exists()


def test_regions_that_nobody_knows_or_uses_are_removed(tmp_path):
    for name in ("pennyweight_lost-0-a_x", "pennyweight_known-0-b_x", "pennyweight_used-0-c_x"):
        (tmp_path / name).write_bytes(b"x" * mmap.PAGESIZE)
    (tmp_path / "pennyweight").touch()
    with (tmp_path / "pennyweight_used-0-c_x").open("r+b") as used, mmap.mmap(used.fileno(), 0):
        assert remove_regions(["known-0-b"], tmp_path) == ["pennyweight_lost-0-a_x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pennyweight",
        "pennyweight_known-0-b_x",
        "pennyweight_used-0-c_x",
    ]


def test_what_was_being_written_is_found(tmp_path):
    lost = tmp_path / ".triton-backends-1-python3.11.0a1b2c3d"
    lost.mkdir()
    (tmp_path / "triton-backends-1-python3.11").mkdir()
    (tmp_path / ".hidden").touch()
    assert list(unfinished(tmp_path)) == [lost]


class Racing(type(Path())):
    """A folder of which something is gone once it was seen."""

    def glob(self, pattern: str) -> Iterator[Path]:
        yield from super().glob(pattern)
        yield self / pattern.replace("*", "goes-0-a_x")


def test_what_goes_meanwhile_is_passed_over(tmp_path, alone):
    (tmp_path / "pennyweight_lost-0-a_x").touch()
    assert remove_regions([], Racing(tmp_path)) == ["pennyweight_lost-0-a_x"]
    old = made(tmp_path, "python_env_a1B2c3", changed=1000)
    assert remove_temporary_folders(Racing(tmp_path), now=2000) == [old]


def test_what_is_of_another_user_is_left_alone(tmp_path, alone, monkeypatch):
    (tmp_path / "pennyweight_lost-0-a_x").touch()
    made(tmp_path, "python_env_a1B2c3", changed=1000)
    other = os.geteuid() + 1
    monkeypatch.setattr(leftovers.os, "geteuid", lambda: other)
    assert remove_regions([], tmp_path) == []
    assert remove_temporary_folders(tmp_path, now=2000) == []
