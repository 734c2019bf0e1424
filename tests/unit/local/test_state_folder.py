"""A state folder that cannot be one is said to be so, by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.local import __main__ as local
from services.local.children import lock_state
from services.local.plan import StackError


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A link that leads to itself, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    return tmp_path / "loop"


def test_a_stack_names_one_whose_link_leads_to_itself(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def run(planned: Callable[[], Any], _: Any) -> int:
        with pytest.raises(StackError) as refused:
            lock_state(planned())
        said.append(str(refused.value))
        return 1

    monkeypatch.setattr(local, "plan", lambda _, state, **_rest: state)
    monkeypatch.setattr(local, "_run", run)
    assert CliRunner().invoke(local.app, ["up", "--state", "loop"]).exit_code == 1
    assert said == [f"The state folder {loop} cannot be used."]


def test_a_demo_names_one_whose_link_leads_to_itself(loop: Path) -> None:
    ended = CliRunner().invoke(local.app, ["demo", "--state", "loop"], env={"COLUMNS": "999"})
    assert ended.exit_code == 2
    assert f"{loop} cannot be used" in ended.output
