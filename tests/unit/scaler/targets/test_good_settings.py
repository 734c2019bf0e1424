"""Good settings that were kept, cannot be read, or cannot be kept."""

from pathlib import Path

import pytest

from services.scaler.targets.good_settings import GoodSettings
from tests.making.replicas import pool


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    good = GoodSettings(tmp_path)
    good.keep("a", pool().having("max_batch_size: 2"))
    assert GoodSettings(tmp_path).load("a") == pool().having("max_batch_size: 2")
    assert good.load("b") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_what_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.json").write_text(text)
    assert GoodSettings(tmp_path).load("a") is None


def test_a_disk_that_refuses_keeps_nothing_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    good = GoodSettings(tmp_path)
    good.keep("a", pool())
    assert good.load("a") is None
