"""Subscriptions: in order, never waited for, ended with a reason."""

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


async def test_a_quiet_fleet_gives_no_news():
    hub = Watchers()
    with hub.subscribe(Update(full=True, replicas=(), revision=7)) as watcher:
        await watcher.next(1.0)
        assert await watcher.next(0.001) is None
