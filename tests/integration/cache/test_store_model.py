"""Random lives of both stores against a model that fits on a screen."""

import asyncio
from asyncio import Future
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cache.policy import Lease
from services.cache.ports import Abandon, Found, Granted, NoEntry, Put
from tests.integration.cache.stores import (
    BY_ANY,
    BY_LARGE,
    BY_SMALL,
    LARGE,
    LEASE_SECONDS,
    SMALL,
    Stage,
    done,
    key,
    open_stage,
    record,
)

TTL = 4500.0
KEYS = [key("a"), key("a", partition="rival")]

keys = st.integers(0, 1)
wanted = st.sampled_from([BY_SMALL, BY_LARGE, BY_ANY])
marks = st.sampled_from([SMALL, LARGE])
which = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), keys, wanted, st.sampled_from([0.0, 750.0, 4050.0])),
        st.tuples(st.just("put"), keys, marks),
        st.tuples(st.just("put_under"), which, marks),
        st.tuples(st.just("abandon"), which, st.booleans()),
        st.tuples(st.just("leave"), which),
        st.tuples(st.just("advance"), st.integers(1, 35)),
    ),
    max_size=25,
)


@dataclass(eq=False)
class Waiting:
    wanted: frozenset[bytes]
    until: float
    pending: Future


@dataclass
class Place:
    """What the model knows of one key."""

    entry: tuple[bytes, float] | None = None
    lease: tuple[Lease, float] | None = None
    waiting: list[Waiting] = field(default_factory=list)


class Life:
    """Does each step to the store and to the model, and compares."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.store = stage, stage.store
        self.places = [Place(), Place()]
        self.leases: list[Lease] = []

    @property
    def now(self) -> float:
        return self.stage.clock.time()

    def place(self, lease: Lease) -> Place:
        return self.places[KEYS.index(lease.key)]

    async def claim(self, n, wanted, wait):
        place = self.places[n]
        waits = place.lease is not None and wait > 0
        if place.entry is not None and place.entry[0] in wanted:
            outcome = await self.stage.claim(KEYS[n], wanted, wait=wait)
            assert outcome == Found(record(mark=place.entry[0]))
        elif waits:
            waiters = sum(len(place.waiting) for place in self.places)
            pending = await self.stage.wait(KEYS[n], wanted, wait=wait, after=waiters)
            place.waiting.append(Waiting(wanted, self.now + wait, pending))
        else:
            outcome = await self.stage.claim(KEYS[n], wanted, wait=wait)
            if place.lease is not None:
                assert outcome is NoEntry.ABSENT
            else:
                self.granted(place, outcome)

    def granted(self, place, outcome):
        assert isinstance(outcome, Granted)
        place.lease = (outcome.lease, self.now + LEASE_SECONDS)
        self.leases.append(outcome.lease)

    async def pass_on(self, place):
        if place.lease is None and place.waiting:
            first = place.waiting.pop(0)
            self.granted(place, await done(first.pending))

    async def stored(self, place, mark):
        place.entry = (mark, self.now + TTL)
        for waiter in [waiter for waiter in place.waiting if mark in waiter.wanted]:
            place.waiting.remove(waiter)
            assert await done(waiter.pending) == Found(record(mark=mark), shared=True)

    async def put(self, n, mark):
        assert await done(self.store.put(KEYS[n], record(mark=mark), TTL)) is Put.STORED
        await self.stored(self.places[n], mark)

    def pick(self, n) -> Lease | None:
        return self.leases[-1 - n] if n < len(self.leases) else None

    async def put_under(self, n, mark):
        if (lease := self.pick(n)) is None:
            return
        place = self.place(lease)
        result = await done(self.store.put_under(lease, record(mark=mark), TTL))
        if place.lease is None or place.lease[0] != lease:
            assert result is Put.NOT_HELD
            return
        assert result is Put.STORED
        place.lease = None
        await self.stored(place, mark)
        await self.pass_on(place)

    async def abandon(self, n, unless_awaited):
        if (lease := self.pick(n)) is None:
            return
        place = self.place(lease)
        holds = place.lease is not None and place.lease[0] == lease
        if unless_awaited and holds and not place.waiting:
            return  # who has just left may still count for a moment: either answer is right
        result = await done(self.store.abandon(lease, unless_awaited=unless_awaited))
        if unless_awaited and holds:
            assert result is Abandon.AWAITED
            return
        assert result is Abandon.ENDED
        if holds:
            place.lease = None
            await self.pass_on(place)

    async def leave(self, n):
        everybody = [(place, waiter) for place in self.places for waiter in place.waiting]
        if n < len(everybody):
            place, waiter = everybody[n]
            place.waiting.remove(waiter)
            waiter.pending.cancel()
            await asyncio.wait([waiter.pending])

    async def advance(self, hundreds):
        # Steps of 50 s, so that patience (x50) and leases and entries (x00) never end together.
        for _ in range(2 * hundreds):
            await self.stage.advance(50.0)
            for place in self.places:
                for waiter in [waiter for waiter in place.waiting if waiter.until <= self.now]:
                    place.waiting.remove(waiter)
                    assert await done(waiter.pending) is NoEntry.ABSENT
                if place.entry is not None and place.entry[1] <= self.now:
                    place.entry = None
                if place.lease is not None and place.lease[1] <= self.now:
                    place.lease = None
                    await self.pass_on(place)

    def check(self):
        for place in self.places:
            assert not any(waiter.pending.done() for waiter in place.waiting)
        assert self.store.counts().waiters == sum(len(place.waiting) for place in self.places)


async def live(where, lived):
    async with open_stage(where) as stage:
        life = Life(stage)
        for name, *arguments in lived:
            await getattr(life, name)(*arguments)
            life.check()
        stage.store.dismiss_waiters()


@given(steps)
@settings(max_examples=60)
def test_the_embedded_store_lives_as_the_model_does(lived):
    asyncio.run(live("memory", lived))


@given(lived=steps)
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_redis_lives_as_the_model_does(redis_server, lived):
    redis_server.flush()
    asyncio.run(live(redis_server.url, lived))
