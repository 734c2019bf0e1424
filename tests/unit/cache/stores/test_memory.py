"""The bounds of the embedded store; what it shares with Redis is tested over both."""

import pytest

from services.cache.policy import Key, Record
from services.cache.ports import Found, Granted, NoEntry
from services.cache.stores.memory import ENTRY_OVERHEAD_BYTES, MemoryStore
from tests.making.clock import FakeClock

MARK = b"smallone"
WANTED = frozenset({MARK})


@pytest.fixture
def clock():
    return FakeClock()


def store_on(clock, **changes):
    limits = {"max_bytes": 2**20, "max_entries": 3, "lease_seconds": 30, "max_waiters": 9}
    return MemoryStore(clock, **(limits | changes))


def key(text):
    return Key(b"acme", text.encode())


def put(store, *names, size=10, ttl=60):
    for name in names:
        store.put(key(name), Record(MARK, b"x" * size), ttl)


def held(store, names):
    return [name for name in names if isinstance(store.look(key(name), WANTED), Found)]


def test_the_least_recently_used_go_first(clock):
    store = store_on(clock)
    put(store, "a", "b", "c")
    store.look(key("a"), WANTED)
    put(store, "d")
    assert held(store, "abcd") == ["a", "c", "d"]
    assert store.counts().evicted == 1


@pytest.mark.parametrize(
    "limits", [{"max_entries": 6}, {"max_bytes": 6 * (10 + ENTRY_OVERHEAD_BYTES)}]
)
def test_who_has_most_makes_room_and_nobody_else(clock, limits):
    store = store_on(clock, **({"max_entries": 99, "max_bytes": 2**20} | limits))
    other = [Key(b"globex", text) for text in (b"1", b"2")]
    for each in other:
        store.put(each, Record(MARK, b"x" * 10), 60)
    put(store, *"abcdefghijklmnop")
    assert all(isinstance(store.look(each, WANTED), Found) for each in other)
    assert held(store, "mnop") == [*"mnop"]
    assert store.counts().evicted == 12
    assert store.counts().bytes == 6 * (10 + ENTRY_OVERHEAD_BYTES)


def test_where_there_are_too_many_who_has_most_of_them_makes_room(clock):
    store = store_on(clock, max_entries=6, max_bytes=2**20)
    other = [Key(b"globex", bytes([number])) for number in range(3)]
    for each in other:
        store.put(each, Record(MARK, b"x" * 8000), 60)
    put(store, *"abcdefgh", size=1)
    assert all(isinstance(store.look(each, WANTED), Found) for each in other)


def test_expired_entries_go_before_live_ones(clock):
    store = store_on(clock)
    put(store, "a", "b", ttl=60)
    put(store, "c", ttl=10)
    clock.advance(20)
    put(store, "d")
    assert held(store, "abcd") == ["a", "b", "d"]
    assert store.counts().evicted == 0


def test_bytes_are_bounded_and_given_back(clock):
    room = 2 * (1000 + ENTRY_OVERHEAD_BYTES)
    store = store_on(clock, max_bytes=room)
    put(store, "a", "b", size=1000)
    assert store.counts().bytes == room
    put(store, "c", size=1000)
    assert held(store, "abc") == ["b", "c"]
    assert store.counts().bytes == room
    put(store, "c", size=10)
    assert store.counts().bytes == room - 990
    clock.advance(60)
    assert store.counts().bytes == 0
    assert store.counts().entries == 0


def test_an_answer_larger_than_the_store_is_not_kept(clock):
    store = store_on(clock, max_bytes=1000)
    put(store, "a", size=2000)
    assert held(store, "a") == []
    assert store.counts().bytes == 0


def test_refreshing_one_entry_over_and_over_takes_no_room(clock):
    store = store_on(clock)
    for _ in range(10_000):
        put(store, "a")
    assert len(store._expiries) < 200
    clock.advance(60)
    assert store.look(key("a"), WANTED) is NoEntry.ABSENT


def test_a_refreshed_entry_lives_on(clock):
    store = store_on(clock)
    put(store, "a")
    clock.advance(50)
    put(store, "a")
    clock.advance(50)
    assert store.counts().entries == 1
    assert held(store, "a") == ["a"]


def test_leases_nobody_ended_take_no_room(clock):
    store = store_on(clock)
    for n in range(100):
        store.claim(key(str(n)), WANTED, 0)
        clock.advance(1)
    assert len(store._leases) <= 31
    assert store.counts().leases_expired == 71


async def test_what_is_over_leaves_no_timers(clock):
    store = store_on(clock)
    lease = store.claim(key("a"), WANTED, 0).lease
    waiting = [store.claim(key("a"), WANTED, 10) for _ in range(3)]
    assert clock.armed == 4
    store.put_under(lease, Record(MARK, b"x"), 60)
    assert [outcome.result().shared for outcome in waiting] == [True] * 3
    assert clock.armed == 0


async def test_an_alarm_that_comes_early_is_set_again(clock):
    store = store_on(clock)
    store.claim(key("a"), WANTED, 0)
    waiting = store.claim(key("a"), WANTED, 60)
    held = store._leases[key("a")]
    store._alarmed(held)
    assert not waiting.done()
    clock.advance(30)
    assert waiting.done()


class EarlyClock(FakeClock):
    """Its timers come a little early, as those of event loops may."""

    def call_later(self, delay, callback, *args):
        return super().call_later(delay * 0.9, callback, *args)


async def test_a_lease_is_passed_on_though_the_timer_came_early():
    clock = EarlyClock()
    store = store_on(clock, lease_seconds=30)
    assert isinstance(store.claim(key("a"), WANTED, 0.0), Granted)
    waiting = store.claim(key("a"), WANTED, 60.0)
    clock.advance(29.0)
    assert not waiting.done()
    clock.advance(2.0)
    assert isinstance(waiting.result(), Granted)
