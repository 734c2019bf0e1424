"""What tests of the calibrate command run in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making.paired import write_routes


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with a routes file, in which the command runs."""
    write_routes(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """What was printed on standard output and error, in one line each."""

    def flat() -> tuple[str, str]:
        out, err = capsys.readouterr()
        return " ".join(out.split()), " ".join(err.split())

    return flat
