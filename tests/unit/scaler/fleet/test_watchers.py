"""Subscriptions: in order, never waited for, ended with a reason."""

from contextlib import ExitStack
from typing import Any

import pytest

from services.common.errors import Overloaded, Unavailable
from services.scaler import watching
from services.scaler.fleet.watchers import Update, Watchers


async def test_a_slow_watcher_is_dropped_and_others_are_not():
    dropped = []
    hub = Watchers(on_drop=lambda: dropped.append(1))
    first = Update(full=True, replicas=(), revision=0)
    with hub.subscribe(first) as slow, hub.subscribe(first) as quick:
        for revision in range(1, watching.QUEUE + 2):
            assert (await quick.next(1.0)).revision == revision - 1
            hub.publish(Update(full=False, replicas=(), revision=revision))
        with pytest.raises(Overloaded, match="too slow"):
            await slow.next(1.0)
        assert (dropped, len(hub)) == ([1], 1)


async def test_closing_ends_watchers_after_what_is_queued():
    hub = Watchers()
    with hub.subscribe(Update(full=True, replicas=(), revision=7)) as watcher:
        hub.close()
        assert (await watcher.next(1.0)).revision == 7
        with pytest.raises(Unavailable):
            await watcher.next(1.0)
    with pytest.raises(Unavailable), hub.subscribe(Update(full=True, replicas=(), revision=8)):
        pass


async def test_what_it_begins_with_is_not_what_it_is_behind():
    hub: Any = watching.Watchers()
    first = range(4 * watching.QUEUE)
    with hub.subscribe(*first) as watcher:
        hub.publish(-1)
        assert [await watcher.next(1.0) for _ in range(len(first) + 1)] == [*first, -1]


async def test_a_quiet_fleet_gives_no_news():
    hub = Watchers()
    with hub.subscribe(Update(full=True, replicas=(), revision=7)) as watcher:
        await watcher.next(1.0)
        assert await watcher.next(0.001) is None


async def test_who_has_most_gives_its_oldest_up_for_a_newcomer_and_nobody_else_does(monkeypatch):
    monkeypatch.setattr(watching, "MAX_WATCHERS", 4)
    hub, first = Watchers(), Update(full=True, replicas=(), revision=7)

    def watch(caller: str) -> Any:
        return stack.enter_context(hub.subscribe(first, caller=caller))

    with ExitStack() as stack:
        oldest, *loud = (watch("loud") for _ in range(4))
        with pytest.raises(Overloaded, match="4 watchers are enough"):
            watch("loud")
        quiet = watch("quiet")
        assert (await oldest.next(1.0)).revision == 7
        with pytest.raises(Overloaded, match="beside those of others"):
            await oldest.next(1.0)
        watch("quiet")
        for caller in ("loud", "quiet"):  # they have as many, and take none from each other
            with pytest.raises(Overloaded, match="4 watchers are enough"):
                watch(caller)
        hub.publish(Update(full=False, replicas=(), revision=8))
        for watcher in (quiet, loud[-1]):
            assert [(await watcher.next(1.0)).revision for _ in range(2)] == [7, 8]
    assert len(hub) == 0
