"""Levers that several routers share: halted for all, safe while nobody knows, never forgotten."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.common.errors import Unavailable
from services.common.redis_link import REST
from services.router.levers.copy import UNKNOWN_SECONDS, parse_record
from services.router.policy.lever_record import CALIBRATION, GUARDRAIL
from services.router.state.file import FileState
from services.router.state.redis import LEVERS, RedisState
from tests.integration.router.sharing import CHAT, SMALL, STORED, Router, recalibrated, router
from tests.integration.router.states import DURABLE, redis_state
from tests.integration.router.world import PATIENCE, until
from tests.making.policies import compiled, ladder, route
from tests.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(*DURABLE) as one:
        yield one


@pytest.fixture
async def states(server: RedisServer) -> AsyncIterator[list[RedisState]]:
    async with AsyncExitStack() as opened:
        made = [redis_state(server.url, 0.5) for _ in range(2)]
        for state in made:
            opened.push_async_callback(state.close)
        yield made


@pytest.fixture
async def routers(states: list[RedisState]) -> list[Router]:
    made = [router(state) for state in states]
    for one in made:
        await one.levers.refresh()
    return made


pytestmark = pytest.mark.redis


async def test_before_anything_is_known_every_lever_counts_as_halted(
    states: list[RedisState],
) -> None:
    one = router(states[0])
    assert one.halted == {SMALL, STORED}
    assert not one.seen().known
    await one.levers.refresh()
    assert one.halted == set()
    assert one.seen().known


async def test_what_the_guardrail_halts_at_one_router_is_halted_at_all(
    routers: list[Router],
) -> None:
    one, other = routers
    await one.spoil()
    assert one.halted == {SMALL}
    await other.levers.refresh()
    assert other.halted == {SMALL}
    standing = other.seen().standing
    assert standing.author == GUARDRAIL
    assert "judged samples" in standing.reason
    assert one.metric("lever_changes_total", author_kind="guardrail") == 1
    assert other.metric("lever_changes_total", author_kind="guardrail") is None
    assert [each.metric("lever_halted") for each in routers] == [1, 1]
    samples = one.metric("guard_samples_total")
    assert samples == one.seen().watch.samples == other.seen().watch.samples
    assert (other.metric("guard_evidence") or 0) >= 1


async def test_a_persons_word_reaches_running_routers_soon(states: list[RedisState]) -> None:
    made = [router(state) for state in states]
    running = [asyncio.create_task(router.levers.run()) for router in made]
    await until(lambda: not made[0].halted and not made[1].halted)
    await made[0].levers.halt(CHAT, STORED, author="ann", reason="stale answers")
    assert made[0].halted == {STORED}
    await until(lambda: made[1].halted == {STORED})
    await made[1].levers.release(CHAT, STORED, author="bob", reason="was flushed")
    await until(lambda: made[0].halted == set())
    assert made[0].seen(STORED).standing.author == "bob"
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_samples_of_all_routers_add_up(routers: list[Router]) -> None:
    one, other = routers
    for _ in range(10):
        await asyncio.gather(
            *(
                each.levers.judged(CHAT, {SMALL: -0.5, STORED: 0.0}, 1.0)
                for each in (one, other) * 2
            )
        )
    for each in routers:
        await each.levers.refresh()
        assert each.seen().watch.samples == 40
        assert each.seen(STORED).watch.samples == 40
        assert each.seen().watch.mean_loss == pytest.approx(-0.5)


async def test_a_halted_lever_takes_no_samples(routers: list[Router]) -> None:
    one, other = routers
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    await other.levers.judged(CHAT, {SMALL: 0.0}, 1.0)  # has not heard of it yet
    await other.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert other.halted == {SMALL}
    assert other.seen().watch.samples == 0
    assert other.metric("guard_samples_total") is None


async def test_a_halt_ends_at_its_expiry_at_every_router(routers: list[Router]) -> None:
    await routers[0].levers.halt(CHAT, SMALL, author="ann", reason="why", seconds=60.0)
    for each in routers:
        await each.pass_seconds(59.0)
        assert each.halted == {SMALL}
        each.now[0] += 1.0
        await each.levers.refresh()
        assert each.halted == set()
        assert each.metric("lever_halted") == 0


async def test_a_fresh_calibration_ends_the_guardrails_halt_alone(routers: list[Router]) -> None:
    one, other = routers
    await one.spoil()
    await one.levers.halt(CHAT, STORED, author="ann", reason="why")
    for each in routers:
        each.in_force.adopt(compiled(recalibrated(CHAT, "v2")))
        assert each.halted <= {STORED}
    for each in (one, other):
        await each.levers.refresh()
        assert each.halted == {STORED}
        assert each.seen().standing.author == CALIBRATION
    changes = [each.metric("lever_changes_total", author_kind="calibration") for each in routers]
    assert changes == [1, None]  # noted once
    one.in_force.adopt(compiled(CHAT))
    assert one.halted == {SMALL, STORED}  # and none for a router that still runs the one before


async def test_a_calibration_on_the_old_evidence_ends_no_halt(routers: list[Router]) -> None:
    one, other = routers
    await one.spoil()
    await other.levers.refresh()
    halted_at = one.seen().standing.since
    assert halted_at is not None
    for youngest in (halted_at - 60.0, halted_at):
        for each in routers:
            each.in_force.adopt(compiled(recalibrated(CHAT, "v2", youngest)))
            await each.levers.refresh()
            await each.levers.judged(recalibrated(CHAT, "v2", youngest), {SMALL: 0.0}, 1.0)
            assert each.halted == {SMALL}
            assert each.seen().standing.author == GUARDRAIL
    for each in routers:
        each.in_force.adopt(compiled(recalibrated(CHAT, "v3", halted_at + 1.0)))
        await each.levers.refresh()
        assert each.halted == set()


async def found_again(each: Router) -> None:
    """Looks until the shared state answers, which has been left alone for a while at most."""
    async with asyncio.timeout(REST.cap_seconds + PATIENCE):
        await each.levers.refresh()
        while not each.seen().known:
            await asyncio.sleep(0.01)
            await each.levers.refresh()


async def test_a_redis_that_is_away_halts_all_until_it_is_back(
    server: RedisServer, routers: list[Router]
) -> None:
    one, other = routers
    await one.levers.halt(CHAT, STORED, author="ann", reason="why")
    await other.levers.refresh()
    server.kill()
    for each in routers:
        await each.pass_seconds(UNKNOWN_SECONDS - 0.1)
        assert each.halted == {STORED}
        assert each.metric("lever_state_unreachable", none="") == 0
        await each.pass_seconds(0.2)
        assert each.halted == {SMALL, STORED}
        assert not each.seen().known
        assert each.metric("lever_state_unreachable", none="") == 1
        assert each.metric("lever_halted") == 1
        await each.levers.judged(CHAT, {SMALL: 1.0}, 1.0)
        with pytest.raises(Unavailable):
            await each.levers.release(CHAT, STORED, author="bob", reason="why")
    server.start()
    for each in routers:
        await found_again(each)
        assert each.halted == {STORED}
        assert each.seen(STORED).standing.author == "ann"
        assert each.metric("lever_state_unreachable", none="") == 0
        assert each.metric("lever_halted") == 0


async def test_a_halt_that_could_not_be_written_holds_here_and_is_told_later(
    server: RedisServer, routers: list[Router]
) -> None:
    one, other = routers
    for _ in range(30):
        before = one.seen().watch
        if before.evidence > 590:  # the next bad sample halts it
            break
        await one.levers.judged(CHAT, {SMALL: 1.0}, 1.0)
    assert one.halted == set()
    server.kill()
    await one.levers.judged(CHAT, {SMALL: 1.0}, 1.0)
    assert one.halted == {SMALL}
    server.start()
    await other.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    await other.levers.refresh()
    assert other.halted == set()
    await one.levers.refresh()
    assert one.halted == {SMALL}
    await other.levers.refresh()
    assert other.halted == {SMALL}
    assert one.metric("lever_changes_total", author_kind="guardrail") == 1


async def test_what_redis_forgets_is_told_again(
    server: RedisServer, states: list[RedisState], routers: list[Router]
) -> None:
    one, other = routers
    await one.levers.halt(CHAT, STORED, author="ann", reason="why")
    await one.spoil()
    await other.levers.refresh()
    server.flush()
    await other.levers.refresh()
    newcomer = router(states[0])
    await newcomer.levers.refresh()
    assert newcomer.halted == one.halted == other.halted == {SMALL, STORED}
    assert newcomer.seen(STORED).standing.author == "ann"


async def test_a_damaged_record_halts_its_lever_until_a_person_sets_it(
    server: RedisServer, states: list[RedisState]
) -> None:
    async with Redis.from_url(server.url) as redis:
        await redis.hset(LEVERS, f"chat/{SMALL}", b"{damaged")
    one = router(states[0])
    await one.levers.refresh()
    assert one.halted == {SMALL}
    assert "damaged" in one.seen().standing.reason
    await one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert one.halted == {SMALL}
    await one.levers.release(CHAT, SMALL, author="ann", reason="looked into it")
    assert one.halted == set()


async def test_a_record_that_is_damaged_later_is_mended_by_who_knows_it(
    server: RedisServer, routers: list[Router]
) -> None:
    one, other = routers
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    async with Redis.from_url(server.url) as redis:
        await redis.hset(LEVERS, f"chat/{SMALL}", b"{damaged")
    await other.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert other.halted == {SMALL}
    assert "damaged" in other.seen().standing.reason
    await one.levers.release(CHAT, STORED, author="ann", reason="so that something changed")
    await one.levers.refresh()
    await other.levers.refresh()
    assert one.seen().standing == other.seen().standing
    assert other.seen().standing.author == "ann"


async def test_levers_of_a_route_that_is_gone_are_no_longer_shown(routers: list[Router]) -> None:
    one = routers[0]
    assert one.metric("lever_halted") == 0
    one.in_force.adopt(compiled(route("other")))
    await one.levers.refresh()
    assert one.metric("lever_halted") is None


async def test_a_sample_that_says_nothing_is_left_out(routers: list[Router]) -> None:
    one = routers[0]
    await one.levers.judged(CHAT, {SMALL: float("nan")}, 1.0)
    await one.levers.judged(CHAT, {SMALL: 0.0}, 7.0)
    await one.levers.judged(CHAT, {"tier:large": 1.0}, 1.0)
    assert one.seen().watch.samples == 0


async def test_a_route_with_a_fixed_tier_has_levers_and_no_watch(states: list[RedisState]) -> None:
    fixed = route("chat", *ladder("small", "large"))
    one = router(states[0], fixed)
    await one.levers.refresh()
    await one.levers.judged(fixed, {SMALL: 1.0}, 1.0)
    assert one.seen().guard is None
    await one.levers.halt(fixed, SMALL, author="ann", reason="why")
    assert one.halted == {SMALL}


async def test_a_router_alone_finds_its_halts_after_a_restart(tmp_path: Path) -> None:
    state = FileState(tmp_path, parse_record)
    one = router(state)
    await one.levers.refresh()
    await one.spoil()
    await one.levers.halt(CHAT, STORED, author="ann", reason="why")
    await state.close()
    state = FileState(tmp_path, parse_record)
    again = router(state)
    assert again.halted == {SMALL, STORED}
    await again.levers.refresh()
    assert again.halted == {SMALL, STORED}
    assert again.seen().standing.author == GUARDRAIL
    assert again.seen(STORED).standing.author == "ann"
    await again.levers.release(CHAT, STORED, author="ann", reason="why not")
    assert again.halted == {SMALL}
    await state.close()
