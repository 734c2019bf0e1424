"""Long prompts: how many at once, whose turn it is, and who is refused."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from services.common.errors import DeadlineExceeded, Overloaded
from services.router.admission import tokenising
from services.router.admission.tokenising import MEMORY_BYTES, Tokenising
from services.router.policy.line import Priority
from services.router.policy.long_prompts import MESSAGE_BYTES, SHORT_BYTES, Room
from services.router.policy.prompts import Message
from services.router.ports import TooLong
from tests.making.walking import Letters

PATIENCE = 20.0
NOW = 1000.0
LONG = 2 * SHORT_BYTES - MESSAGE_BYTES
"""Of a text that counts as twice of what is short."""


class Slow(Letters):
    """Tokenises a prompt when the test lets it, and keeps the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.threads: list[int] = []
        self.gates: dict[str, threading.Event] = {}

    def encode_below(self, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
        name = messages[0].content.strip("-")
        self.threads.append(threading.get_ident())
        self.begun.append(name)
        if not self.gate(name).wait(PATIENCE):
            raise AssertionError(f"{name} was not let go")
        return super().encode_below(messages, limit)

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())

    def let_go(self, *names: str) -> None:
        for name in names:
            self.gate(name).set()


class Desk:
    """Prompts that are asked to be tokenised."""

    def __init__(self, room: Room | None = None) -> None:
        self.text = Slow()
        self.tokenising = Tokenising(lambda: NOW, room)

    def ask(
        self,
        name: str,
        *,
        size: int = LONG,
        priority: Priority = Priority.INTERACTIVE,
        seconds: float = PATIENCE,
    ) -> "asyncio.Task[Sequence[int] | TooLong]":
        """The tenant is the name's first letter."""
        messages = (Message("user", name.ljust(size, "-")),)
        work = self.tokenising.tokens(
            self.text,
            messages,
            10 * size,
            tenant=name[0],
            priority=priority,
            until=NOW + seconds,
        )
        return asyncio.create_task(work)

    async def begun(self, *names: str) -> None:
        """Waits until exactly these have begun, in this order."""
        async with asyncio.timeout(PATIENCE):
            while len(self.text.begun) < len(names):
                await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)
        assert self.text.begun == list(names)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    for gate in made.text.gates.values():
        gate.set()
    made.tokenising.close()


async def test_a_short_prompt_is_tokenised_at_once_whatever_waits(desk: Desk) -> None:
    asked = [desk.ask(name) for name in ("a1", "b1", "c1", "a2")]
    await desk.begun("a1", "b1")
    desk.text.let_go("a9")
    short = await desk.ask("a9", size=SHORT_BYTES - MESSAGE_BYTES)
    assert isinstance(short, list)
    assert len(short) == SHORT_BYTES - MESSAGE_BYTES
    assert desk.text.threads[-1] == threading.get_ident() != desk.text.threads[0]
    assert not any(one.done() for one in asked)
    desk.text.let_go("a1", "b1", "c1", "a2")
    await asyncio.gather(*asked)


SHORTEST = SHORT_BYTES - MESSAGE_BYTES
"""Bytes of the longest text that is short, in one message."""


@pytest.mark.parametrize(
    ("contents", "inline"),
    [
        (["x" * SHORTEST], True),
        (["x" * (SHORTEST + 1)], False),
        (["🎈" * (SHORTEST // 4)], True),
        (["🎈" * (SHORTEST // 4 + 1)], False),
        (["hi"] * 30, True),
        (["hi"] * 32, False),  # rendering takes its time too
    ],
)
async def test_bytes_and_messages_say_whether_a_prompt_is_long(
    desk: Desk, contents: list[str], *, inline: bool
) -> None:
    desk.text.let_go(contents[0])
    await desk.tokenising.tokens(
        desk.text,
        [Message("user", content) for content in contents],
        10**9,
        tenant="a",
        priority=Priority.BATCH,
        until=NOW + PATIENCE,
    )
    assert (desk.text.threads[0] == threading.get_ident()) is inline


async def test_one_tenant_has_a_part_of_the_threads_however_many_it_asks(desk: Desk) -> None:
    flood = [desk.ask(f"a{number}", priority=Priority.CRITICAL) for number in range(5)]
    await desk.begun("a0")
    quiet = desk.ask("b0", priority=Priority.BATCH)
    await desk.begun("a0", "b0")
    desk.text.let_go("b0")
    await quiet
    third, later = desk.ask("c0"), desk.ask("b1")
    await desk.begun("a0", "b0", "c0")
    desk.text.let_go("c0")
    await third
    await desk.begun("a0", "b0", "c0", "b1")
    desk.text.let_go("b1", *[f"a{number}" for number in range(5)])
    await asyncio.gather(later, *flood)
    assert desk.text.begun[4:] == ["a1", "a2", "a3", "a4"]


async def test_what_waits_is_bounded_for_a_tenant_and_in_all() -> None:
    desk = Desk(Room(at_once=2, waiting_bytes=16 * SHORT_BYTES))  # two of a tenant, eight in all
    running = [desk.ask("a0"), desk.ask("z0")]
    await desk.begun("a0", "z0")
    waiting = [desk.ask(name) for name in ("a1", "a2", "b1", "b2", "b3", "c1", "c2", "d1", "d2")]
    with pytest.raises(Overloaded) as caught:
        await desk.ask("a3")
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("LONG_PROMPTS", 1.0)
    with pytest.raises(Overloaded):
        await waiting.pop(4)
    with pytest.raises(Overloaded):
        await desk.ask("e1")
    gone = waiting.pop()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    waiting.append(desk.ask("e2"))
    await asyncio.sleep(0)
    for name in ("a0", "z0", "a1", "a2", "b1", "b2", "c1", "c2", "d1", "e2"):
        desk.text.let_go(name)
    await asyncio.gather(*running, *waiting)
    assert not desk.tokenising._long._waiting_bytes
    desk.tokenising.close()


async def test_who_gives_up_is_not_tokenised_and_holds_up_nobody(desk: Desk) -> None:
    first = desk.ask("a1")
    await desk.begun("a1")
    gone, late, stays = desk.ask("a2"), desk.ask("a3", seconds=0.0), desk.ask("a4")
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(DeadlineExceeded) as caught:
        await late
    assert caught.value.reason == "QUEUED_TOO_LONG"
    desk.text.let_go("a1", "a4")
    await asyncio.gather(first, stays)
    assert desk.text.begun == ["a1", "a4"]


async def test_what_runs_counts_until_it_is_done_though_its_caller_has_gone(desk: Desk) -> None:
    first, second = desk.ask("a1"), desk.ask("a2")
    await desk.begun("a1")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await desk.begun("a1")
    desk.text.let_go("a1", "a2")
    await second
    assert desk.text.begun == ["a1", "a2"]
    assert not desk.tokenising._long._turns._taken


async def test_a_turn_that_comes_at_the_moment_of_giving_up_is_given_on(desk: Desk) -> None:
    first, second, third = desk.ask("a1"), desk.ask("a2"), desk.ask("a3")
    await desk.begun("a1")
    assert len(desk.tokenising._long._turns._line) == 2
    # as if the first were done: the second has its turn
    desk.tokenising._long._turns.give_back("a")
    second.cancel()
    desk.text.let_go("a3", "a1")
    await third
    desk.tokenising._long._turns._taken["a"] += 1
    await first
    await asyncio.gather(second, return_exceptions=True)
    assert "a2" not in desk.text.begun


async def test_what_goes_wrong_is_told_and_gives_the_turn_back(desk: Desk) -> None:
    class Broken(Slow):
        def encode_below(self, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
            raise ValueError("no")

    text, desk.text = desk.text, Broken()
    with pytest.raises(ValueError, match="no"):
        await desk.ask("a1")
    desk.text = text
    desk.text.let_go("a2")
    await desk.ask("a2")


async def test_after_a_large_prompt_its_memory_is_given_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(tokenising, "give_memory_back", lambda: given.append(1))
    desk.text.let_go("a1", "a2")
    await desk.ask("a1", size=MEMORY_BYTES - MESSAGE_BYTES - 1)
    assert not given
    await desk.ask("a2", size=MEMORY_BYTES - MESSAGE_BYTES)
    assert given == [1]
