"""What every store promises: one suite, in process and over a real Redis."""

import asyncio

import pytest

from services.cache.ports import Abandon, Found, Granted, NoEntry, Put
from tests.integration.cache.stores import (
    BY_ANY,
    BY_LARGE,
    BY_SMALL,
    LARGE,
    LEASE_SECONDS,
    done,
    key,
    open_stage,
    record,
)


@pytest.fixture
async def stage(where):
    async with open_stage(where) as stage:
        yield stage


@pytest.fixture
def store(stage):
    return stage.store


async def granted(stage, which=None, wanted=BY_SMALL):
    outcome = await stage.claim(which or key(), wanted)
    assert isinstance(outcome, Granted)
    return outcome.lease


async def test_only_the_first_gets_the_lease(stage, store):
    outcome = await stage.claim(key(), BY_SMALL)
    assert isinstance(outcome, Granted)
    assert outcome.seconds == LEASE_SECONDS
    assert await stage.claim(key(), BY_SMALL) is NoEntry.ABSENT
    assert isinstance(await stage.claim(key("other"), BY_SMALL), Granted)


async def test_a_look_takes_no_lease(stage, store):
    assert await done(store.look(key(), BY_SMALL)) is NoEntry.ABSENT
    lease = await granted(stage)
    await done(store.put_under(lease, record(), 600))
    assert await done(store.look(key(), BY_SMALL)) == Found(record())


async def test_what_is_stored_is_found(stage, store):
    lease = await granted(stage)
    assert await done(store.put_under(lease, record(), 600)) is Put.STORED
    assert await stage.claim(key(), BY_SMALL) == Found(record())
    assert await stage.claim(key(), BY_SMALL) == Found(record())


async def test_who_waits_is_served_what_comes(stage, store):
    lease = await granted(stage)
    waiting = [await stage.wait(key(), BY_SMALL, after=n) for n in range(5)]
    await done(store.put_under(lease, record(), 600))
    assert [await done(claim) for claim in waiting] == [Found(record(), shared=True)] * 5
    assert store.counts().waiters == 0


async def test_a_lease_given_back_goes_to_one_waiter_at_a_time_in_order(stage, store):
    lease = await granted(stage)
    waiting = [await stage.wait(key(), BY_SMALL, after=n) for n in range(3)]
    for n in range(3):
        assert await done(store.abandon(lease)) is Abandon.ENDED
        outcome = await done(waiting[n])
        assert isinstance(outcome, Granted)
        assert store.counts().waiters == 2 - n
        lease = outcome.lease
    assert await done(store.put_under(lease, record(), 600)) is Put.STORED
    assert store.counts().leases_expired == 0


async def test_a_lease_that_ends_by_itself_goes_to_one_waiter(stage, store):
    lease = await granted(stage)
    first = await stage.wait(key(), BY_SMALL, wait=5000)
    second = await stage.wait(key(), BY_SMALL, wait=5000, after=1)
    await stage.advance(LEASE_SECONDS - 100)
    assert not first.done()
    await stage.advance(100)
    outcome = await done(first)
    assert isinstance(outcome, Granted)
    assert not second.done()
    assert store.counts().leases_expired == 1
    assert await done(store.put_under(lease, record("late"), 600)) is Put.NOT_HELD
    assert await done(store.put_under(outcome.lease, record(), 600)) is Put.STORED
    assert await done(second) == Found(record(), shared=True)


async def test_a_lease_that_was_passed_on_ends_by_itself_too(stage, store):
    lease = await granted(stage)
    first = await stage.wait(key(), BY_SMALL, wait=9000)
    second = await stage.wait(key(), BY_SMALL, wait=9000, after=1)
    await done(store.abandon(lease))
    assert isinstance(await done(first), Granted)
    await stage.advance(LEASE_SECONDS)
    assert isinstance(await done(second), Granted)
    assert store.counts().leases_expired == 1


async def test_a_lease_that_ended_cannot_store_and_changes_nothing(stage, store):
    lease = await granted(stage)
    await stage.advance(LEASE_SECONDS)
    assert await done(store.put_under(lease, record("late"), 600)) is Put.NOT_HELD
    assert await done(store.look(key(), BY_SMALL)) is NoEntry.ABSENT
    assert store.counts().leases_expired == 1
    assert isinstance(await stage.claim(key(), BY_SMALL), Granted)
    assert store.counts().leases_expired == 1


async def test_a_lease_ends_once(stage, store):
    lease = await granted(stage)
    assert await done(store.put_under(lease, record(), 600)) is Put.STORED
    assert await done(store.put_under(lease, record("again"), 600)) is Put.NOT_HELD
    assert await done(store.abandon(lease)) is Abandon.ENDED
    assert await stage.claim(key(), BY_SMALL) == Found(record())


async def test_an_old_lease_does_not_end_the_new_one(stage, store):
    old = await granted(stage)
    await done(store.abandon(old))
    await granted(stage)
    await done(store.abandon(old))
    assert await stage.claim(key(), BY_SMALL) is NoEntry.ABSENT


async def test_an_old_lease_is_not_kept_though_the_new_one_is_awaited(stage, store):
    old = await granted(stage)
    await done(store.abandon(old))
    new = await granted(stage)
    await stage.wait(key(), BY_SMALL)
    assert await done(store.abandon(old, unless_awaited=True)) is Abandon.ENDED
    assert await done(store.abandon(new, unless_awaited=True)) is Abandon.AWAITED
    store.dismiss_waiters()


async def test_a_lease_is_worth_nothing_elsewhere(stage, store):
    lease = await granted(stage)
    elsewhere = lease._replace(key=key(partition="rival"))
    assert await done(store.put_under(elsewhere, record(), 600)) is Put.NOT_HELD
    await done(store.abandon(elsewhere))
    assert await done(store.look(key(partition="rival"), BY_SMALL)) is NoEntry.ABSENT
    assert await done(store.put_under(lease, record(), 600)) is Put.STORED


async def test_partitions_see_nothing_of_each_other(stage, store):
    await done(store.put(key(), record(), 600))
    assert await done(store.look(key(partition="rival"), BY_SMALL)) is NoEntry.ABSENT
    assert isinstance(await stage.claim(key(partition="rival"), BY_SMALL), Granted)


async def test_patience_ends(stage, store):
    await granted(stage)
    waiting = await stage.wait(key(), BY_SMALL, wait=5)
    await stage.advance(4.9)
    assert not waiting.done()
    await stage.advance(0.2)
    assert await done(waiting) is NoEntry.ABSENT
    assert store.counts().waiters == 0


async def test_who_leaves_is_passed_over(stage, store):
    lease = await granted(stage)
    first = await stage.wait(key(), BY_SMALL)
    second = await stage.wait(key(), BY_SMALL, after=1)
    first.cancel()
    await done(store.abandon(lease))
    assert isinstance(await done(second), Granted)
    assert first.cancelled()


async def test_an_entry_ends_with_its_time_to_live(stage, store):
    await done(store.put(key(), record(), 600))
    await stage.advance(500)
    assert await done(store.look(key(), BY_SMALL)) == Found(record())
    await stage.advance(100)
    assert await done(store.look(key(), BY_SMALL)) is NoEntry.ABSENT
    assert isinstance(await stage.claim(key(), BY_SMALL), Granted)


async def test_an_entry_by_another_writer_is_a_miss_and_may_be_replaced(stage, store):
    await done(store.put(key(), record(), 600))
    assert await done(store.look(key(), BY_LARGE)) is NoEntry.ABSENT
    lease = await granted(stage, wanted=BY_LARGE)
    assert await stage.claim(key(), BY_ANY) == Found(record())
    await done(store.put_under(lease, record("better", LARGE), 600))
    assert await stage.claim(key(), BY_ANY) == Found(record("better", LARGE))


async def test_whom_an_answer_does_not_serve_gets_the_lease(stage, store):
    lease = await granted(stage)
    picky = await stage.wait(key(), BY_LARGE)
    easy = await stage.wait(key(), BY_ANY, after=1)
    await done(store.put_under(lease, record(), 600))
    assert await done(easy) == Found(record(), shared=True)
    assert isinstance(await done(picky), Granted)


async def test_a_refresh_serves_who_waits_and_leaves_the_lease(stage, store):
    lease = await granted(stage)
    waiting = await stage.wait(key(), BY_SMALL)
    assert await done(store.put(key(), record("fresh"), 600)) is Put.STORED
    assert await done(waiting) == Found(record("fresh"), shared=True)
    assert await done(store.put_under(lease, record("mine"), 600)) is Put.STORED
    assert await stage.claim(key(), BY_SMALL) == Found(record("mine"))


async def test_a_lease_is_kept_for_who_waits(stage, store):
    lease = await granted(stage)
    waiting = await stage.wait(key(), BY_SMALL)
    assert await done(store.abandon(lease, unless_awaited=True)) is Abandon.AWAITED
    assert not waiting.done()
    assert await done(store.put_under(lease, record(), 600)) is Put.STORED
    assert await done(waiting) == Found(record(), shared=True)


async def test_a_lease_nobody_waits_for_is_not_kept(stage, store):
    lease = await granted(stage)
    assert await done(store.abandon(lease, unless_awaited=True)) is Abandon.ENDED
    lease = await granted(stage)
    await stage.advance(LEASE_SECONDS)
    assert await done(store.abandon(lease, unless_awaited=True)) is Abandon.ENDED


async def test_a_full_room_takes_nobody(where):
    async with open_stage(where, max_waiters=1) as stage:
        await granted(stage)
        first = await stage.wait(key(), BY_SMALL)
        assert await stage.claim(key(), BY_SMALL, wait=10) is NoEntry.ABSENT
        first.cancel()
        await asyncio.wait([first])
        second = await stage.wait(key(), BY_SMALL)
        stage.store.dismiss_waiters()
        assert await done(second) is NoEntry.ABSENT


async def test_a_partition_leaves_room_for_others_to_wait(where):
    async with open_stage(where, max_waiters=6) as stage:
        waiting = 0
        for partition, places in (("acme", 4), ("umbrella", 2)):
            same = key(partition=partition)
            await granted(stage, same)
            for _ in range(places):
                await stage.wait(same, BY_SMALL, after=waiting)
                waiting += 1
            assert await stage.claim(same, BY_SMALL, wait=10) is NoEntry.ABSENT
        stage.store.dismiss_waiters()


async def test_a_burst_computes_once(stage, store):
    claims = [store.claim(key(), BY_SMALL, 10) for _ in range(50)]
    outcomes = [claim for claim in claims if isinstance(claim, Granted)]
    pending = [claim for claim in claims if isinstance(claim, asyncio.Future)]
    while not outcomes:
        finished, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        outcomes = [claim.result() for claim in finished]
    (lease,) = [outcome.lease for outcome in outcomes]
    await done(store.put_under(lease, record(), 600))
    ended = [await done(claim) for claim in claims]
    assert sum(isinstance(outcome, Granted) for outcome in ended) == 1
    assert sum(isinstance(outcome, Found) for outcome in ended) == 49
