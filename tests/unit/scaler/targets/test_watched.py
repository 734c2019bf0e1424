"""Objects of a cluster: when they are listed anew, and how long a server is left alone before."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest

from services.scaler.targets.kubernetes.client import Kind
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault
from services.scaler.targets.kubernetes.watched import AGAIN, Watched

ENDS = None
"""A stream that comes to its end in order."""


@dataclass
class Thing:
    name: str


class Over(Exception):
    """All that the source was to answer is answered."""


class Source:
    """Gives the same list again and again, and streams that end as a test says."""

    def __init__(self, *ends: ClusterFault | None) -> None:
        self.ends = list(ends)
        self.unlisted: list[ClusterFault] = []

    async def list(self, kind: Kind[Any]) -> tuple[list[Thing], str]:
        if self.unlisted:
            raise self.unlisted.pop(0)
        return [Thing("one")], "7"

    async def watch(
        self, kind: Kind[Any], version: str, seconds: float
    ) -> AsyncGenerator[tuple[str, Thing], None]:
        if not self.ends:
            raise Over
        if (end := self.ends.pop(0)) is not None:
            raise end
        yield "ADDED", Thing("two")


async def watched(source: Source) -> tuple[Watched[Thing], list[float]]:
    """What is watched until the source is at its end, and the pauses that were made."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    seen: Watched[Thing] = Watched(
        source,
        Kind(None, Thing),
        lambda: None,
        lambda _fault: None,
        clock=lambda: 5.0,
        pause=pause,
    )
    with pytest.raises(Over):
        await seen.run()
    return seen, pauses


def busy(seconds: float = 0.0) -> ClusterFault:
    return ClusterFault(Fault.BUSY, "429", seconds)


def gone() -> ClusterFault:
    return ClusterFault(Fault.GONE, "410")


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks():
    source = Source(busy(7.0), busy())
    source.unlisted = [busy(9.0)]
    seen, (first, second, third) = await watched(source)
    assert (first, second) == (9.0, 7.0)
    assert third <= AGAIN.first_seconds
    assert seen.listings == 3


async def test_what_is_too_old_is_listed_anew_at_once():
    seen, pauses = await watched(Source(gone(), ENDS, gone(), ENDS))
    assert (seen.listings, pauses, seen.fault) == (5, [], "")


async def test_who_is_told_so_again_and_again_waits():
    seen, pauses = await watched(Source(gone(), gone(), gone()))
    assert (seen.listings, len(pauses)) == (4, 2)


async def test_a_list_that_fails_again_and_again_is_waited_for_ever_longer():
    source = Source()
    source.unlisted = [busy() for _ in range(6)]
    _, pauses = await watched(source)
    assert len(pauses) == 6
    assert pauses[-1] > AGAIN.first_seconds
