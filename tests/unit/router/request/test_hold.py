"""Checks of what is held back, wherever they run."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.common.errors import DeadlineExceeded, Overloaded
from services.router.admission.long_work import LongWork
from services.router.policy.effort import Effort
from services.router.policy.forms import Validator, json_schema
from services.router.policy.line import Priority
from services.router.policy.long_prompts import Room
from services.router.request.context import RequestContext
from services.router.request.hold import LONG_CHECK, Checks

PATIENCE = 20.0


class Desk:
    """Answers that are asked to be checked; a check of a text waits until it is let go."""

    def __init__(self) -> None:
        self.work = LongWork("checking", lambda: 0.0, Room(waiting_bytes=128 << 10))
        self.checks = Checks(self.work)
        self.begun: list[str] = []
        self.threads: list[int] = []
        self.gates: dict[str, threading.Event] = {}

    def ask(self, name: str, cost: int = LONG_CHECK, until: float = PATIENCE) -> Any:
        """The tenant is the name's first letter."""
        checked = SimpleNamespace(validators=(Validator(self.passes, cost),))
        context = cast("RequestContext", SimpleNamespace(checked=checked, tenant=name[0]))
        return self.checks.has_form(name, context, until, Priority.INTERACTIVE)

    def passes(self, text: str, _: Effort) -> bool:
        self.threads.append(threading.get_ident())
        self.begun.append(text)
        if threading.get_ident() != threading.main_thread().ident:
            assert self.gate(text).wait(PATIENCE)
        return True

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    async def until_begun(self, *names: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.begun) < len(names):
                await asyncio.sleep(0.001)
        assert self.begun == list(names)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    for gate in made.gates.values():
        gate.set()
    made.work.close()


@pytest.mark.parametrize(("name", "cost"), [("a" * 100, 1), ("a", LONG_CHECK)])
async def test_a_short_check_is_done_at_once(desk: Desk, name: str, cost: int) -> None:
    assert await desk.ask(name, cost)
    assert desk.threads == [threading.get_ident()]


@pytest.mark.parametrize(("name", "cost"), [("a" * 101, LONG_CHECK // 100), ("aa", LONG_CHECK)])
async def test_a_check_that_takes_long_runs_beside_the_requests(
    desk: Desk, name: str, cost: int
) -> None:
    desk.gate(name).set()
    assert await desk.ask(name, cost)
    assert desk.threads != [threading.get_ident()]


async def test_tenants_take_turns_with_long_checks(desk: Desk) -> None:
    asked = [asyncio.ensure_future(desk.ask(name)) for name in ("a1", "a2", "a3", "b1", "c1")]
    await desk.until_begun("a1", "b1")  # one of each at most
    desk.gate("b1").set()
    await desk.until_begun("a1", "b1", "c1")
    for name in ("a1", "a2", "a3", "c1"):
        desk.gate(name).set()
    assert await asyncio.gather(*asked) == [True] * 5
    assert set(desk.begun[3:]) == {"a2", "a3"}


async def test_a_tenant_has_so_many_checks_waiting(desk: Desk) -> None:
    asked = [asyncio.ensure_future(desk.ask(f"a{number}")) for number in range(5)]
    await desk.until_begun("a0")
    with pytest.raises(Overloaded) as caught:
        await desk.ask("a5")
    assert caught.value.reason == "ANSWER_CHECKS"
    for number in range(5):
        desk.gate(f"a{number}").set()
    assert await asyncio.gather(*asked) == [True] * 5


async def test_a_check_whose_turn_does_not_come_in_time_is_given_up(desk: Desk) -> None:
    first = asyncio.ensure_future(desk.ask("a1"))
    await desk.until_begun("a1")
    with pytest.raises(DeadlineExceeded, match="checks of answers"):
        await desk.ask("a2", until=0.0)
    desk.gate("a1").set()
    assert await first


def test_a_schema_costs_by_its_size() -> None:
    assert json_schema('{"type": "number"}').cost == len('{"type": "number"}')
