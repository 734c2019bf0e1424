"""The kill switch works while what routers share takes no writes, and says what is in the way."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.common.errors import Unavailable
from services.common.redis_link import REST
from services.router.levers.copy import READ_EVERY, UNKNOWN_SECONDS, parse_record
from services.router.state.file import FileState
from services.router.state.redis import CHANGES, KEPT, LEVERS, RedisState
from tests.integration.router.sharing import CHAT, SMALL, STORED, Router, router
from tests.integration.router.states import DURABLE, LONG, ONE, TWO, redis_state
from tests.integration.router.world import PATIENCE
from tests.making.ports import free_port
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(*DURABLE) as one:
        yield one


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as one:
        yield one


@pytest.fixture
async def state(server: RedisServer) -> AsyncIterator[RedisState]:
    one = redis_state(server.url)
    yield one
    await one.close()


async def opened(state: RedisState) -> Router:
    made = router(state)
    await made.levers.refresh()
    return made


REFUSALS = {
    "full": (("CONFIG SET maxmemory 1",), ("CONFIG SET maxmemory 0",), "out of memory"),
    "replica": (
        (f"REPLICAOF 127.0.0.1 {free_port()}",),
        ("REPLICAOF NO ONE",),
        "read-only, as a replica is",
    ),
    "alone": (
        ("CONFIG SET min-replicas-to-write 1",),
        ("CONFIG SET min-replicas-to-write 0",),
        "too few replicas",
    ),
    "rights": (("ACL SETUSER default -hset",), ("ACL SETUSER default +hset",), "not permit"),
}


@pytest.mark.redis
@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_redis_that_takes_no_writes_does_not_keep_a_lever_from_being_halted(
    redis: Redis, state: RedisState, kind: str
) -> None:
    breaks, mends, why = REFUSALS[kind]
    one, other = await opened(state), await opened(state)
    await one.levers.halt(CHAT, STORED, author="bob", reason="stale")
    await other.levers.refresh()
    for command in breaks:
        await redis.execute_command(*command.split())
    seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="wrong refunds")
    assert (seen.standing.author, seen.unsaved) == ("ann", True)
    for each in (one, other):
        await each.pass_seconds(UNKNOWN_SECONDS + 0.1)  # it still tells what it has
        assert each.seen().known
    assert (one.halted, other.halted) == ({SMALL, STORED}, {STORED})
    with pytest.raises(Unavailable, match=why) as caught:
        await other.levers.release(CHAT, STORED, author="bob", reason="fresh again")
    assert caught.value.reason == "STATE_REFUSED"
    assert other.halted == {STORED}
    for command in mends:
        await redis.execute_command(*command.split())
    for each in (one, other):
        await each.levers.refresh()
        assert each.halted == {SMALL, STORED}
        assert each.seen().standing.author == "ann"
        assert not each.seen().unsaved


@pytest.mark.redis
async def test_a_redis_whose_disk_is_full_does_not_keep_a_lever_from_being_halted(
    redis: Redis, state: RedisState
) -> None:
    """As of a snapshot that cannot be written: there is a folder in its place."""
    one = await opened(state)
    folder = Path(str((await redis.config_get("dir"))["dir"]))
    (folder / "dump.rdb").mkdir()
    await redis.config_set("save", "3600 1")
    await redis.bgsave()
    async with asyncio.timeout(PATIENCE):
        while (await redis.info("persistence"))["rdb_last_bgsave_status"] == "ok":
            await asyncio.sleep(0.01)
    assert (await one.levers.halt(CHAT, SMALL, author="ann", reason="why")).unsaved
    with pytest.raises(Unavailable, match="Redis cannot write to its disk"):
        await one.levers.release(CHAT, SMALL, author="ann", reason="was fine")
    await redis.config_set("stop-writes-on-bgsave-error", "no")
    await one.levers.refresh()
    assert not one.seen().unsaved


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["gone", "hangs"])
async def test_a_redis_that_is_away_does_not_keep_a_lever_from_being_halted(
    server: RedisServer, kind: str
) -> None:
    state = redis_state(server.url, 0.5)
    one = await opened(state)
    await one.levers.halt(CHAT, STORED, author="bob", reason="stale")
    (server.kill if kind == "gone" else server.pause)()
    try:
        seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="wrong refunds")
        assert (seen.standing.author, seen.unsaved) == ("ann", True)
        assert one.halted == {SMALL, STORED}
    finally:
        (server.start if kind == "gone" else server.resume)()
    other = router(state)
    await until_told(one, other)
    assert other.seen().standing.author == "ann"
    await state.close()


async def until_told(one: Router, other: Router) -> None:
    """Looks until another router knows what this one has told."""
    async with asyncio.timeout(REST.cap_seconds + PATIENCE):
        while other.seen().standing.author == "":
            await asyncio.sleep(0.01)
            await one.levers.refresh()
            await other.levers.refresh()


WRONG = {
    "levers": (("SET", LEVERS, "x"), f"its key {LEVERS} holds a string, where a hash belongs"),
    "list": (("RPUSH", LEVERS, "x"), f"its key {LEVERS} holds a list, where a hash belongs"),
    "changes": (
        ("RPUSH", CHANGES, "x"),
        f"its key {CHANGES} holds a list, where a whole number belongs",
    ),
}


@pytest.mark.redis
@pytest.mark.parametrize("kind", WRONG)
async def test_a_key_of_another_type_is_named(redis: Redis, state: RedisState, kind: str) -> None:
    command, named = WRONG[kind]
    one = await opened(state)
    await redis.execute_command(*command)
    for _ in range(READ_EVERY):
        await one.levers.refresh()
    await one.pass_seconds(UNKNOWN_SECONDS + 0.1)
    assert one.halted == {SMALL, STORED}
    assert not one.seen().known
    assert one.seen().standing.reason == f"the state that routers share cannot be used: {named}"
    with pytest.raises(Unavailable) as caught:
        await one.levers.release(CHAT, SMALL, author="ann", reason="why")
    assert named in str(caught.value)
    assert (await one.levers.halt(CHAT, SMALL, author="ann", reason="why")).unsaved
    await redis.delete(command[1])
    await one.levers.refresh()
    assert one.halted == {SMALL}


@pytest.mark.redis
async def test_a_count_of_changes_that_is_no_number_is_named_and_changes_nothing(
    redis: Redis, state: RedisState
) -> None:
    await state.swap("chat/cache", None, ONE)
    await redis.set(CHANGES, "many")
    named = f"its key {CHANGES} holds a string, where a whole number belongs"
    with pytest.raises(Unavailable, match=named.replace("{", "\\{")):
        await state.swap("chat/cache", ONE, TWO)
    assert await redis.hget(LEVERS, "chat/cache") == ONE


@pytest.mark.redis
async def test_a_kept_value_of_another_type_is_named(redis: Redis, state: RedisState) -> None:
    await redis.rpush(f"{KEPT}pair:1", "x")
    for use in (
        state.kept("pair:1", tenant="acme"),
        state.keep_once("pair:1", b"value", LONG, tenant="acme"),
    ):
        with pytest.raises(Unavailable, match=f"its key {KEPT}pair:1 holds a list, where a string"):
            await use


@pytest.mark.redis
async def test_a_redis_that_wants_another_password_is_told_from_one_that_is_away() -> None:
    with RedisServer("--requirepass", "s3cret") as server:
        state = redis_state(server.url)
        for _ in range(8):  # also while it is left alone for a while
            with pytest.raises(Unavailable, match="Redis refuses our user or password") as caught:
                await state.changes()
            assert caught.value.reason == "STATE_REFUSED"
        server.kill()
        async with asyncio.timeout(REST.cap_seconds + PATIENCE):
            while caught.value.reason == "STATE_REFUSED":
                with pytest.raises(Unavailable) as caught:
                    await state.changes()
                await asyncio.sleep(0.01)
        await state.close()


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from services.common.errors import Unavailable
from services.common.redis_link import REST
from services.router.levers.copy import parse_record
from services.router.state.file import FileState
from tests.integration.router.sharing import CHAT, SMALL, STORED, router

def take(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

async def main():
    state = FileState(Path(sys.argv[1]), parse_record)
    one = router(state)
    await one.levers.refresh()
    await one.levers.halt(CHAT, STORED, author="bob", reason="stale")
    take(0)
    seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="wrong refunds")
    await one.levers.refresh()
    print("said", seen.unsaved, seen.standing.author, sorted(one.halted), one.seen().known)
    try:
        await one.levers.release(CHAT, STORED, author="bob", reason="fresh again")
    except Unavailable as error:
        print("said", error.reason)
    if sys.argv[2] == "room":
        take(resource.RLIM_INFINITY)
        await one.levers.refresh()
        print("said", one.seen().unsaved)
    await state.close()

asyncio.run(main())
"""


async def on_a_full_disk(folder: Path, then: str) -> list[str]:
    """What a router alone says whose disk is full, and then has room again, or has not."""
    command = [sys.executable, "-c", FULL_DISK, str(folder), then]
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line.startswith("said ")]


@pytest.mark.parametrize("then", ["room", "still full"])
async def test_a_full_disk_does_not_keep_a_lever_from_being_halted(
    tmp_path: Path, then: str
) -> None:
    said = await on_a_full_disk(tmp_path, then)
    assert said[:2] == [f"said True ann ['{STORED}', '{SMALL}'] True", "said STATE_REFUSED"]
    assert said[2:] == (["said False"] if then == "room" else [])
    state = FileState(tmp_path, parse_record)  # as the next start finds it
    again = router(state)
    await again.levers.refresh()
    assert again.halted == ({SMALL, STORED} if then == "room" else {STORED})
    await state.close()
