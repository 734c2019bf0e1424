"""Whose folder it is: a stack's own, and a scaler's while that lives."""

from pathlib import Path

import pytest

from services.common.files import FolderLock
from services.local import children
from services.local.children import end_replicas, lock_state
from services.local.plan import StackError


def test_a_folder_has_one_stack_at_a_time(tmp_path: Path) -> None:
    lock = lock_state(tmp_path)
    with pytest.raises(StackError, match=rf"Another stack uses the folder {tmp_path}\."):
        lock_state(tmp_path)
    lock.close()
    lock_state(tmp_path).close()


def test_a_folder_that_cannot_be_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StackError, match=r"taken cannot be used\."):
        lock_state(tmp_path / "taken")


def test_replicas_of_a_scaler_that_lives_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(children, "_processes_of_replicas", lambda: looked.append("") or [])
    (tmp_path / "replicas" / "a").mkdir(parents=True)
    lock = FolderLock(tmp_path, "scaler")
    assert end_replicas(tmp_path) == []
    assert not looked
    lock.close()
    assert end_replicas(tmp_path) == []
    assert looked
    FolderLock(tmp_path, "scaler").close()  # not kept
