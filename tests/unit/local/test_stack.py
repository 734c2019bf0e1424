"""What a stack that was killed left is waited for, and who hangs is named."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.common.files import FolderLock
from services.local import asking
from services.local import stack as stack_module
from services.local.plan import STATES, StackError, plan
from services.local.stack import LEFT_SECONDS, Stack


class Scene:
    def __init__(self, state: Path) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.says = asyncio.Event()
        stop: Any = SimpleNamespace(asked=asyncio.Event(), forced=asyncio.Event())
        self.stack = Stack(plan({}, state), stop, self._say, lambda: self.now)
        self.waits = asyncio.create_task(self.stack._earlier_ends())

    def _say(self, sentence: str) -> None:
        self.said.append(sentence)
        self.says.set()


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ports in use."""
    taken: list[str] = []

    def check(_services: object) -> None:
        if taken:
            raise StackError("the port is in use")

    monkeypatch.setattr(stack_module, "check_ports", check)
    monkeypatch.setattr(asking, "open_channel", lambda _address: None)
    return taken


@pytest.mark.parametrize("owner", STATES)
async def test_a_service_that_still_ends_is_waited_for(
    tmp_path: Path, ports: list[str], owner: str
) -> None:
    lock = FolderLock(tmp_path / owner, owner)
    ports.append("its own")
    scene = Scene(tmp_path)
    await asyncio.wait_for(scene.says.wait(), 10)
    assert scene.said == [f"an earlier run's {owner} still ends, and is waited for"]
    assert not scene.waits.done()
    lock.close()
    ports.clear()
    await asyncio.wait_for(scene.waits, 10)


async def test_nobody_is_waited_for_where_nothing_is_left(tmp_path: Path, ports: list[str]) -> None:
    await asyncio.wait_for(Scene(tmp_path).waits, 10)
    ports.append("somebody's")
    scene = Scene(tmp_path)
    with pytest.raises(StackError, match="in use"):
        await asyncio.wait_for(scene.waits, 10)
    assert scene.said == []


async def test_the_wait_has_an_end(tmp_path: Path, ports: list[str]) -> None:
    lock = FolderLock(tmp_path / "scaler", "scaler")
    ports.append("its own")
    scene = Scene(tmp_path)
    await asyncio.wait_for(scene.says.wait(), 10)
    scene.now = LEFT_SECONDS
    with pytest.raises(StackError, match="in use"):
        await asyncio.wait_for(scene.waits, 10)
    lock.close()


async def test_who_runs_and_does_not_answer_is_named(
    tmp_path: Path, ports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    await scene.waits
    found = {"router": None, "cache": 2, "scaler": None}

    async def health(name: str) -> int | None:
        return found[name]

    monkeypatch.setattr(scene.stack.services, "health", health)
    ended = {"scaler": 1}
    children: Any = {name: SimpleNamespace(code=ended.get(name)) for name in found}
    scene.stack._children = children
    assert await scene.stack.silent() == ["the router does not answer"]
