"""The shared state in Redis when that goes, is silent or refuses; and which state is opened."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from services.common.config import ConfigError, from_environment, prefix_of
from services.common.errors import Unavailable
from services.common.redis_link import REST, RedisLink
from services.router.config import RouterSettings
from services.router.levers.copy import parse_record
from services.router.state.file import FILE, FileState
from services.router.state.redis import HELD, KEPT, RedisState
from services.router.state.store import SharedState, open_state
from tests.integration.router.states import DURABLE, LONG, ONE, TWO, redis_state
from tests.integration.router.world import PATIENCE
from tests.making.ports import free_port
from tests.redis_server import RedisServer, tls_redis


async def refused(state: SharedState) -> None:
    for asked in (
        state.changes(),
        state.records(),
        state.swap("chat/cache", None, ONE),
        state.keep_once("pair:1", b"kept", LONG, tenant="acme"),
        state.kept("pair:1", tenant="acme"),
    ):
        with pytest.raises(Unavailable):
            await asked


async def answered(state: SharedState) -> None:
    """Returns once it answers again, which is soon."""
    async with asyncio.timeout(REST.cap_seconds + PATIENCE):
        while True:
            with suppress(Unavailable):
                await state.changes()
                return
            await asyncio.sleep(0.01)


@pytest.mark.redis
async def test_redis_may_go_and_come_back() -> None:
    state = redis_state(f"redis://127.0.0.1:{free_port()}", 0.5)
    await refused(state)  # never there
    await state.close()
    with RedisServer(*DURABLE) as server:
        state = redis_state(server.url, 0.5)
        await state.swap("chat/cache", None, ONE)
        server.kill()
        await refused(state)
        server.start()
        await answered(state)
        _, records = await state.records()
        assert dict(records) == {"chat/cache": ONE}
        await state.close()


@pytest.mark.redis
async def test_a_redis_that_is_silent_is_not_waited_for() -> None:
    with RedisServer() as server:
        state = redis_state(server.url, 0.1)
        assert await state.changes() == ""
        server.pause()
        await refused(state)
        server.resume()
        await answered(state)
        assert (await state.swap("chat/cache", None, TWO))[1] in (ONE, TWO)  # the first may arrive
        await state.close()


@pytest.mark.redis
async def test_a_redis_that_hangs_costs_its_timeout_and_then_nothing() -> None:
    with RedisServer() as server:
        state = redis_state(server.url, 0.5)
        await state.changes()
        server.pause()
        try:
            began = time.monotonic()
            await asyncio.gather(*(refused(state) for _ in range(20)))
            assert time.monotonic() - began < 5  # a hundred uses, not a hundred timeouts
            took = []
            for _ in range(20):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await state.kept("pair:1", tenant="acme")
                took.append(time.monotonic() - began)
            assert min(took) < 0.1  # far less than one timeout
        finally:
            server.resume()
        await answered(state)
        await state.close()


@pytest.mark.redis
async def test_a_redis_that_takes_nothing_is_said() -> None:
    with RedisServer("--min-replicas-to-write", "1") as server:
        state = redis_state(server.url, 5.0)
        assert await state.changes() == ""
        with pytest.raises(Unavailable):
            await state.swap("chat/cache", None, ONE)
        await state.close()


@pytest.mark.redis
async def test_tls_and_password_come_from_files(tmp_path: Path) -> None:
    with tls_redis(tmp_path) as address:
        settings = RouterSettings(
            state=address,
            redis_ca_file=tmp_path / "cert.pem",
            redis_password_file=tmp_path / "password",
            redis_timeout_seconds=1.0,
        )
        async with open_state(settings, parse_record) as state:
            assert await state.swap("chat/cache", None, ONE) == (True, ONE)


# -- which of them


async def test_the_settings_say_which(tmp_path: Path) -> None:
    async with open_state(RouterSettings(state_folder=tmp_path / "here"), parse_record) as state:
        assert isinstance(state, FileState)
    assert (tmp_path / "here" / FILE).exists()
    async with open_state(RouterSettings(state="redis://127.0.0.1:1"), parse_record) as state:
        assert isinstance(state, RedisState)


def test_no_use_of_redis_may_take_long() -> None:
    prefix = prefix_of("router")
    environment = {f"{prefix}REDIS_TIMEOUT_SECONDS": "2"}
    with pytest.raises(ConfigError, match=r"REDIS_TIMEOUT_SECONDS: must be at most 1"):
        from_environment(RouterSettings, prefix, environment)


@pytest.mark.redis
async def test_what_tenants_cause_holds_up_no_lever() -> None:
    with RedisServer() as server:
        state = redis_state(server.url)
        for _ in range(8):  # as many as have a connection: what follows would wait behind them
            await state._link._turns.take("acme")
        kept = asyncio.create_task(state.kept("pair:1", tenant="acme"))
        async with asyncio.timeout(PATIENCE):
            await state.changes()
            assert await state.swap("chat/cache", None, ONE) == (True, ONE)
            assert dict((await state.records())[1]) == {"chat/cache": ONE}
        assert not kept.done()
        state._link._turns.give_back()
        assert await kept is None
        await state.close()


@pytest.mark.redis
async def test_a_tenant_has_so_many_values_and_others_keep_theirs() -> None:
    with RedisServer() as server:
        state = redis_state(server.url, max_kept=3)
        for name, tenant, seconds in (
            ("b0", "globex", 50.0),  # would run out first of all
            ("a0", "acme", 0.001),
            *((f"a{at}", "acme", 100.0 * at) for at in range(1, 6)),
        ):
            await state.keep_once(name, b"kept", seconds, tenant=tenant)
            async with asyncio.timeout(PATIENCE):
                while name == "a0" and await state.kept(name, tenant=tenant) is not None:
                    pass
        assert await state.keep_once("a5", b"other", LONG, tenant="acme") == b"kept"
        redis = Redis.from_url(server.url)
        assert sorted(redis.keys(f"{KEPT}*")) == [
            f"{KEPT}{at}".encode() for at in ("a3", "a4", "a5", "b0")
        ]
        assert redis.zcard(f"{HELD}acme") == 3
        assert 400.0 < redis.ttl(f"{HELD}acme") <= 500.0
        redis.close()
        await state.close()


@pytest.mark.redis
async def test_a_changed_password_is_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    with RedisServer("--requirepass", "old") as server:
        state = RedisState(
            *(
                RedisLink(server.url, password=file.read_text, timeout_seconds=0.5, connections=2)
                for _ in range(2)
            )
        )
        await answered(state)
        admin = Redis.from_url(server.url, password="old")
        admin.config_set("requirepass", "new")
        file.write_text("new")
        admin.client_kill_filter(_type="normal", skipme=True)
        await answered(state)
        assert (await state.swap("chat/cache", None, ONE)) == (True, ONE)
        admin.close()
        await state.close()
