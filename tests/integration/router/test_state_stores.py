"""What routers share, in a folder and in Redis: one suite for both, then a folder's own."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.config import ConfigError
from services.common.errors import Unavailable
from services.common.files import LOCK
from services.router.levers.copy import parse_record
from services.router.state import database as state_file
from services.router.state.database import SCHEMA
from services.router.state.file import FILE, FileState
from services.router.state.store import SharedState
from tests.integration.router.states import (
    DURABLE,
    LONG,
    ONE,
    THREE,
    TWO,
    Stage,
    a_record,
    file_stage,
    redis_stage,
)
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(*DURABLE) as server:
        yield server


Open = Callable[[], Any]
"""Opens the same state; each time as a new process would."""


@pytest.fixture(params=["file", pytest.param("redis", marks=pytest.mark.redis)])
def open_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "file":
        return lambda: file_stage(tmp_path / "state")
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return lambda: redis_stage(server.url)


@pytest.fixture
async def stage(open_stage: Open) -> AsyncIterator[Stage]:
    async with open_stage() as one:
        yield one


@pytest.fixture
def state(stage: Stage) -> SharedState:
    return stage.state


async def test_a_new_state_is_empty(state: SharedState) -> None:
    changes, records = await state.records()
    assert dict(records) == {}
    assert changes == await state.changes()
    assert await state.kept("pair:1", tenant="acme") is None


async def test_a_record_is_put_in_the_place_of_the_one_that_was_there(state: SharedState) -> None:
    assert await state.swap("chat/cache", None, ONE) == (True, ONE)
    assert await state.swap("chat/cache", ONE, TWO) == (True, TWO)
    _, records = await state.records()
    assert dict(records) == {"chat/cache": TWO}


async def test_a_record_that_changed_in_between_stays_and_is_said(state: SharedState) -> None:
    assert await state.swap("chat/cache", ONE, TWO) == (False, b"")
    await state.swap("chat/cache", None, ONE)
    assert await state.swap("chat/cache", None, TWO) == (False, ONE)
    assert await state.swap("chat/cache", THREE, TWO) == (False, ONE)
    _, records = await state.records()
    assert dict(records) == {"chat/cache": ONE}


async def test_only_one_of_many_at_once_is_put(state: SharedState) -> None:
    wanted = [a_record(f"reason {at}") for at in range(20)]
    answers = await asyncio.gather(*(state.swap("chat/cache", None, record) for record in wanted))
    winners = [record for record, (done, _) in zip(wanted, answers, strict=True) if done]
    assert len(winners) == 1
    assert {now for _, now in answers} == set(winners)


async def test_every_change_is_noticed_and_nothing_else(state: SharedState) -> None:
    seen = [await state.changes()]
    for name, before, after in (
        ("a/cache", None, ONE),
        ("b/cache", None, ONE),
        ("a/cache", ONE, TWO),
    ):
        await state.swap(name, before, after)
        seen.append(await state.changes())
    assert len(set(seen)) == len(seen)
    await state.swap("a/cache", None, THREE)
    await state.keep_once("pair:1", b"kept", LONG, tenant="acme")
    assert await state.changes() == seen[-1]
    assert (await state.records())[0] == seen[-1]


async def test_a_value_is_kept_once(state: SharedState) -> None:
    assert await state.keep_once("outcome:1", b"good", LONG, tenant="acme") is None
    assert await state.keep_once("outcome:1", b"bad", LONG, tenant="acme") == b"good"
    assert await state.kept("outcome:1", tenant="acme") == b"good"
    assert await state.kept("outcome:2", tenant="acme") is None


async def test_only_one_of_many_at_once_is_kept(state: SharedState) -> None:
    values = [str(at).encode() for at in range(20)]
    before = await asyncio.gather(
        *(state.keep_once("pair:1", value, LONG, tenant="acme") for value in values)
    )
    assert before.count(None) == 1
    kept = values[before.index(None)]
    assert {value for value in before if value is not None} == {kept}
    assert await state.kept("pair:1", tenant="acme") == kept


async def test_any_bytes_are_kept(state: SharedState) -> None:
    value = bytes(range(256))
    await state.keep_once("ключ:1", value, LONG, tenant="acme")
    assert await state.kept("ключ:1", tenant="acme") == value


async def test_a_value_runs_out(stage: Stage) -> None:
    await stage.state.keep_once("pair:1", b"first", LONG, tenant="acme")
    await stage.advance(LONG - 1000)
    assert await stage.state.kept("pair:1", tenant="acme") == b"first"
    await stage.advance(2000)
    assert await stage.state.kept("pair:1", tenant="acme") is None
    assert await stage.state.keep_once("pair:1", b"second", LONG, tenant="acme") is None
    assert await stage.state.kept("pair:1", tenant="acme") == b"second"


async def test_another_process_finds_what_was_kept(open_stage: Open) -> None:
    async with open_stage() as stage:
        await stage.state.swap("chat/cache", None, ONE)
        await stage.state.keep_once("outcome:1", b"good", LONG, tenant="acme")
    async with open_stage() as stage:
        _, records = await stage.state.records()
        assert dict(records) == {"chat/cache": ONE}
        assert await stage.state.keep_once("outcome:1", b"bad", LONG, tenant="acme") == b"good"


# -- a folder


async def test_a_folder_belongs_to_one_router_at_a_time(tmp_path: Path) -> None:
    async with file_stage(tmp_path):
        with pytest.raises(ConfigError, match="another router uses it"):
            FileState(tmp_path, parse_record)
    async with file_stage(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"state folder .*taken"):
        FileState(tmp_path / "taken", parse_record)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def fill(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE levers (name, record)")
    database.close()


def with_a_bad_record(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE levers SET record = ?", (b'{"setting": 1}',))
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a database, but long enough to be one" * 100),
        cut,
        fill,
        of_another_program,
        with_a_bad_record,
    ],
    ids=["empty", "garbage", "cut", "overwritten", "another", "record"],
)
async def test_a_damaged_file_stops_the_start_and_stays_as_it_is(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    async with file_stage(tmp_path) as stage:
        await stage.state.swap("chat/cache", None, ONE)
        await stage.state.keep_once("pair:1", b"kept", LONG, tenant="acme")
    damage(tmp_path / FILE)
    damaged = (tmp_path / FILE).read_bytes()
    with pytest.raises(ConfigError) as caught:
        FileState(tmp_path, parse_record)
    assert caught.value.source == str(tmp_path / FILE)
    assert "damaged" in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == damaged


async def test_a_crash_leaves_what_was_kept(tmp_path: Path) -> None:
    """The files as they are in the middle of a life, without any orderly end."""
    async with file_stage(tmp_path / "one") as stage:
        await stage.state.swap("chat/cache", None, ONE)
        await stage.state.keep_once("pair:1", b"kept", LONG, tenant="acme")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with file_stage(tmp_path / "two") as stage:
        _, records = await stage.state.records()
        assert dict(records) == {"chat/cache": ONE}
        assert await stage.state.kept("pair:1", tenant="acme") == b"kept"


@pytest.mark.parametrize("gone", ["folder", "file"])
async def test_what_is_moved_away_is_made_anew_with_every_lever(tmp_path: Path, gone: str) -> None:
    folder, moved = tmp_path / "state", tmp_path / "moved"
    async with file_stage(folder) as stage:
        await stage.state.swap("chat/cache", None, ONE)
        if gone == "folder":
            folder.rename(moved)
        else:
            (folder / FILE).rename(moved)
        assert await stage.state.swap("chat/effort", None, TWO) == (True, TWO)
        assert await stage.state.keep_once("pair:1", b"kept", LONG, tenant="acme") is None
        with pytest.raises(ConfigError, match="another router uses it"):
            FileState(folder, parse_record)
        if gone == "folder":
            FileState(moved, parse_record)._lock.close()  # nobody's any more
    async with file_stage(folder) as stage:
        _, records = await stage.state.records()
        assert dict(records) == {"chat/cache": ONE, "chat/effort": TWO}
        assert await stage.state.kept("pair:1", tenant="acme") == b"kept"


async def test_what_is_moved_away_is_made_anew_though_nothing_changes(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with file_stage(folder) as stage:
        await stage.state.swap("chat/cache", None, ONE)
        shutil.rmtree(folder)
        assert isinstance(stage.state, FileState)
        await stage.state.changes()
        behind_it = stage.state._worker._thread.submit(lambda: None)
        await asyncio.wrap_future(behind_it)
        shutil.copytree(folder, tmp_path / "as a kill leaves it")
    async with file_stage(tmp_path / "as a kill leaves it") as stage:
        assert dict((await stage.state.records())[1]) == {"chat/cache": ONE}


async def test_a_file_that_is_put_in_place_is_taken(tmp_path: Path) -> None:
    async with file_stage(tmp_path / "other") as stage:
        await stage.state.swap("chat/cache", None, TWO)
    async with file_stage(tmp_path / "state") as stage:
        await stage.state.swap("chat/cache", None, ONE)
        before = await stage.state.changes()
        (tmp_path / "other" / FILE).replace(tmp_path / "state" / FILE)
        assert await stage.state.swap("chat/cache", ONE, THREE) == (False, TWO)
        assert await stage.state.changes() != before
        (tmp_path / "state" / FILE).write_bytes(b"")
        (tmp_path / "state" / FILE).unlink()
        (tmp_path / "state" / FILE).write_bytes(b"nonsense")
        with pytest.raises(Unavailable, match="damaged"):
            await stage.state.keep_once("pair:1", b"kept", LONG, tenant="acme")
        assert dict((await stage.state.records())[1]) == {"chat/cache": TWO}
        (tmp_path / "state" / FILE).unlink()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_start_that_is_broken_off_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(state_file, "SCHEMA", f"{SCHEMA} CREATE NONSENSE;")
        with pytest.raises(ConfigError, match="NONSENSE"):
            FileState(tmp_path, parse_record)
    assert names(tmp_path) == [LOCK]
    async with file_stage(tmp_path) as stage:
        assert await stage.state.swap("chat/cache", None, ONE) == (True, ONE)


async def test_beyond_the_bound_what_would_run_out_first_is_given_up(tmp_path: Path) -> None:
    async with file_stage(tmp_path, max_kept=3) as stage:
        for at, seconds in enumerate((LONG, 10.0, LONG, LONG + 1)):
            await stage.state.keep_once(f"pair:{at}", b"kept", seconds, tenant="acme")
        kept = [await stage.state.kept(f"pair:{at}", tenant="acme") is not None for at in range(4)]
        assert kept == [True, False, True, True]


async def test_who_has_most_gives_way_and_nobody_else(tmp_path: Path) -> None:
    async with file_stage(tmp_path, max_kept=6) as stage:
        for at in range(2):  # what would run out first of all
            await stage.state.keep_once(f"outcome:b{at}", b"kept", LONG - 9, tenant="globex")
        for at in range(10):
            await stage.state.keep_once(f"outcome:a{at}", b"kept", LONG + at, tenant="acme")
    async with file_stage(tmp_path, max_kept=6) as stage:  # it is known whose they are
        await stage.state.keep_once("outcome:b2", b"kept", LONG, tenant="globex")
        found = [
            name
            for name in (*(f"b{at}" for at in range(3)), *(f"a{at}" for at in range(10)))
            if await stage.state.kept(f"outcome:{name}", tenant="acme") is not None
        ]
        assert found == ["b0", "b1", "b2", "a7", "a8", "a9"]


async def test_what_has_run_out_or_was_not_written_counts_for_nobody(tmp_path: Path) -> None:
    async with file_stage(tmp_path, max_kept=3) as stage:
        assert isinstance(stage.state, FileState)
        for at in range(2):
            await stage.state.keep_once(f"outcome:a{at}", b"kept", 10.0, tenant="acme")
        stage.state._database.execute("PRAGMA query_only = ON")
        with pytest.raises(Unavailable):
            await stage.state.keep_once("outcome:a2", b"kept", LONG, tenant="acme")
        stage.state._database.execute("PRAGMA query_only = OFF")
        assert stage.state._held == {"acme": 2}
        await stage.advance(20.0)
        await stage.state.keep_once("outcome:b0", b"kept", LONG, tenant="globex")
        assert +stage.state._held == {"globex": 1}


async def test_a_file_of_the_first_format_goes_on(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with sqlite3.connect(tmp_path / "state" / FILE) as database:
        database.executescript(SCHEMA)  # as it was
        database.execute("INSERT INTO levers VALUES ('chat/cache', ?)", (ONE,))
        database.execute("INSERT INTO kept VALUES ('outcome:1', CAST('good' AS BLOB), 5000.0)")
    database.close()
    for _ in range(2):
        async with file_stage(tmp_path / "state") as stage:
            assert dict((await stage.state.records())[1]) == {"chat/cache": ONE}
            before = await stage.state.keep_once("outcome:1", b"bad", LONG, tenant="acme")
            assert before == b"good"


async def test_levers_are_set_whatever_tenants_cause(tmp_path: Path) -> None:
    """In one thread, of which so much is asked that it would be refused to any tenant."""
    async with file_stage(tmp_path) as stage:
        crowd = [
            asyncio.create_task(stage.state.keep_once(f"{who}{at}", b"1", LONG, tenant=who))
            for who in "abcde"
            for at in range(300)
        ]
        await asyncio.sleep(0)
        assert await stage.state.swap("chat/cache", None, ONE) == (True, ONE)
        ends = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [end for end in ends if end is not None]
        assert 0 < len(refused) <= 500  # fewer, by what was written meanwhile
        assert {type(end) for end in refused} == {Unavailable}
        assert {end.retry_after_seconds for end in refused if isinstance(end, Unavailable)} == {1.0}


async def test_a_disk_that_refuses_is_said_and_changes_nothing(tmp_path: Path) -> None:
    async with file_stage(tmp_path) as stage:
        await stage.state.swap("chat/cache", None, ONE)
        before = await stage.state.changes()
        stage.state._database.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
        with pytest.raises(Unavailable):
            await stage.state.swap("chat/cache", ONE, TWO)
        with pytest.raises(Unavailable):
            await stage.state.keep_once("pair:1", b"kept", LONG, tenant="acme")
        assert await stage.state.records() == (before, {"chat/cache": ONE})
        stage.state._database.execute("PRAGMA query_only = OFF")  # type: ignore[attr-defined]
        assert await stage.state.swap("chat/cache", ONE, TWO) == (True, TWO)
        assert await stage.state.kept("pair:1", tenant="acme") is None
