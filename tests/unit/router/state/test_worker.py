"""Work on the disk: levers first, a part for each tenant, and many changes in one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import pytest

from services.router.state.worker import MAX_WAITING, TOGETHER, TooMuchWaits, Worker

PATIENCE = 20.0
PART = MAX_WAITING // 4


class Disk:
    """Changes of a disk that the test lets go on; each is a list of what was done in it."""

    def __init__(self) -> None:
        self.changes: list[list[str]] = []
        self.let_go = threading.Event()
        self.asked = threading.Event()
        self.error: Exception | None = None
        self.worker: Worker[list[str]] = Worker(self.change)

    @contextmanager
    def change(self) -> Iterator[list[str]]:
        self.asked.set()
        assert self.let_go.wait(PATIENCE)
        done: list[str] = []
        yield done
        if self.error is not None:
            raise self.error
        self.changes.append(done)

    def first(self, name: str) -> "asyncio.Future[str]":
        return self.worker.first(lambda done: self.do(done, name))

    def of(self, tenant: str, name: str) -> "asyncio.Future[str]":
        return self.worker.of(tenant, lambda done: self.do(done, name))

    @staticmethod
    def do(done: list[str], name: str) -> str:
        done.append(name)
        return name

    async def busy(self) -> "asyncio.Future[str]":
        """The thread is at work, so that what follows waits."""
        begun = self.first("begun")
        assert await asyncio.to_thread(self.asked.wait, PATIENCE)
        return begun


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    one = Disk()
    yield one
    one.let_go.set()
    with suppress(RuntimeError):  # a test may have closed it
        await one.worker.close(lambda: None)


async def test_levers_go_before_all_that_tenants_cause(disk: Disk) -> None:
    begun = await disk.busy()
    outcomes = [disk.of("acme", f"outcome {at}") for at in range(PART)]
    levers = [disk.first("halt"), disk.first("release")]
    disk.let_go.set()
    assert await asyncio.gather(begun, *levers, *outcomes) == [
        *("begun", "halt", "release"),
        *(f"outcome {at}" for at in range(PART)),
    ]
    assert disk.changes[:3] == [["begun"], ["halt"], ["release"]]


async def test_what_waits_is_one_change_within_bounds(disk: Disk) -> None:
    await disk.busy()
    outcomes = [disk.of("acme", str(at)) for at in range(TOGETHER + 3)]
    disk.let_go.set()
    await asyncio.gather(*outcomes)
    assert [len(change) for change in disk.changes] == [1, TOGETHER, 3]


async def test_a_tenant_has_a_part_of_the_line_and_levers_one_of_their_own(disk: Disk) -> None:
    await disk.busy()
    crowd = [disk.of("acme", str(at)) for at in range(PART)]
    with pytest.raises(TooMuchWaits):
        disk.of("acme", "one more")
    for tenant in ("b", "c", "d"):
        crowd += [disk.of(tenant, str(at)) for at in range(PART)]
    with pytest.raises(TooMuchWaits):
        disk.of("globex", "one more than all")
    halt = disk.first("halt")
    disk.let_go.set()
    assert await halt == "halt"
    await asyncio.gather(*crowd)
    assert disk.worker.idle
    assert await disk.of("acme", "again") == "again"


async def test_a_change_that_fails_is_told_to_all_whose_it_was(disk: Disk) -> None:
    begun = await disk.busy()
    outcomes = [disk.of("acme", "one"), disk.of("globex", "two")]
    disk.error = OSError("no space left")
    disk.let_go.set()
    for failed in (begun, *outcomes):
        with pytest.raises(OSError, match="no space"):
            await failed
    disk.error = None
    assert await disk.of("acme", "three") == "three"


async def test_who_has_gone_before_its_turn_is_passed_over(disk: Disk) -> None:
    await disk.busy()
    gone, stays = disk.of("acme", "gone"), disk.of("acme", "stays")
    gone.cancel()
    await asyncio.sleep(0)
    disk.let_go.set()
    assert await stays == "stays"
    assert disk.changes == [["begun"], ["stays"]]


async def test_what_waits_is_done_before_the_end(disk: Disk) -> None:
    begun = await disk.busy()
    outcome = disk.of("acme", "one")
    ended: list[bool] = []
    closing = asyncio.create_task(disk.worker.close(lambda: ended.append(True)))
    await asyncio.sleep(0)
    disk.let_go.set()
    await closing
    assert (await begun, await outcome, ended) == ("begun", "one", [True])
