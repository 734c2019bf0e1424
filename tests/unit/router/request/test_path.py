"""A request's way when its caller hangs up at the worst moments; nothing of the answer is lost."""

import asyncio

import pytest

from services.common.errors import InternalError
from services.router.policy.routes import Cancel
from tests.making import walking
from tests.making.policies import route, tier
from tests.making.walking import Cache, Engine, Listener, Run


class Way(walking.Way):
    """A path with one tier, and a request on it."""

    def __init__(
        self,
        run: Run | None,
        cache: Cache,
        *,
        cancel: Cancel = Cancel.ABORT,
        streaming: bool = True,
    ) -> None:
        small, engine = tier("small", cancel=cancel), Engine({"small": [run] if run else []})
        super().__init__(route("chat", small), engine, cache=cache, streaming=streaming)
        self.replica = self.replicas[0]


CHUNKS = ["one ", "two ", "three"]


@pytest.mark.parametrize("cancel", list(Cancel))
@pytest.mark.parametrize("moment", range(4))
async def test_a_caller_who_goes_while_being_told_leaves_a_whole_answer(
    moment: int, cancel: Cancel
) -> None:
    run, cache = Run([*CHUNKS]), Cache()
    way = Way(run, cache, cancel=cancel)
    await way.hang_up(Listener(moment))
    (stored,) = cache.stored
    assert "".join(text for text, _ in stored.pieces) == "one two three"
    assert stored.output_tokens == sum(tokens for _, tokens in stored.pieces) == 13
    assert (run.finished, run.cancelled) == (True, False)
    assert way.replica.in_flight == 0
    assert not way.replica.calls
    assert cache.abandoned == []


@pytest.mark.parametrize("moment", range(4))
async def test_an_error_while_telling_is_a_caller_who_has_gone(moment: int) -> None:
    run, cache = Run([*CHUNKS]), Cache()
    way = Way(run, cache, cancel=Cancel.DRAIN)
    await way.hang_up(Listener(moment, raises=ConnectionError))
    assert [one.output_tokens for one in cache.stored] == [13]
    assert (run.finished, run.cancelled) == (True, False)
    assert way.replica.in_flight == 0


async def test_a_run_nobody_waits_for_is_cancelled_and_its_lease_given_back() -> None:
    run, cache = Run([*CHUNKS]), Cache(awaited=False)
    way = Way(run, cache)
    await way.hang_up(Listener(1))
    assert (run.cancelled, cache.stored, cache.abandoned) == (True, [], ["lease"])
    assert way.replica.in_flight == 0


async def test_a_run_that_must_drain_is_not_cancelled_though_nobody_waits_for_it() -> None:
    run, cache = Run([*CHUNKS]), Cache(awaited=False)
    way = Way(run, cache, cancel=Cancel.DRAIN)
    await way.hang_up(Listener(1))
    assert (run.finished, run.cancelled) == (True, False)
    assert way.replica.in_flight == 0


async def test_a_complete_run_is_ended_as_its_server_wants_though_nobody_needs_it() -> None:
    run, cache = Run([*CHUNKS]), Cache(lease="")
    way = Way(run, cache)
    await way.hang_up(Listener(3))
    assert (run.finished, run.cancelled, cache.stored) == (True, False, [])
    assert way.replica.in_flight == 0


async def test_an_answer_complete_when_its_caller_goes_is_stored_and_not_cancelled() -> None:
    run, cache = Run([*CHUNKS]), Cache(awaited=False)
    way = Way(run, cache)
    await way.hang_up(Listener(3))  # told all but the last piece
    assert [one.output_tokens for one in cache.stored] == [13]
    assert (run.finished, run.cancelled) == (True, False)


async def test_a_run_without_a_lease_is_cancelled_where_it_may() -> None:
    run, cache = Run([*CHUNKS]), Cache(lease="")
    way = Way(run, cache)
    await way.hang_up(Listener(1))
    assert (run.cancelled, run.finished, cache.stored) == (True, False, [])
    assert way.replica.in_flight == 0


async def test_a_run_that_cannot_start_gives_its_place_back() -> None:
    cache = Cache()
    way = Way(None, cache)
    with pytest.raises(InternalError):
        await way.answer(Listener())
    assert way.replica.in_flight == 0
    assert cache.abandoned == ["lease"]


async def test_a_good_answer_is_stored_and_its_lease_with_it() -> None:
    run, cache, listener = Run([*CHUNKS]), Cache(), Listener()
    way = Way(run, cache)
    await way.answer(listener)
    assert listener.events == ["started", *CHUNKS]
    assert [one.output_tokens for one in cache.stored] == [13]
    assert cache.abandoned == []
    assert way.replica.in_flight == 0


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_whole_answer_is_stored_before_its_caller_has_read_it(*, streaming: bool) -> None:
    cache, listener = Cache(), Listener(blocks_at=3 if streaming else 0)
    way = Way(Run([*CHUNKS]), cache, streaming=streaming)
    answering = asyncio.create_task(way.answer(listener))
    async with asyncio.timeout(5):
        await listener.blocked.wait()
    (stored,) = cache.stored
    assert ("".join(text for text, _ in stored.pieces), stored.output_tokens) == (
        "one two three",
        13,
    )
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    assert len(cache.stored) == 1
    assert cache.abandoned == []
