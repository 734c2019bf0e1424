"""What stands where an operator's file should be keeps nobody waiting: a pipe never begins."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from services.cache.config import CacheSettings
from services.common import redis_link
from services.common.channel import Peer
from services.common.config import ConfigError, load_document
from services.common.credentials import Keyring, read_key
from services.common.keys_in_force import KeysInForce
from services.common.plain_files import is_being_written, read_plain
from services.common.redis_link import RedisLink
from services.common.redis_settings import RedisSettings
from services.router.engines.texts import Texts
from services.router.engines.tokenizer import ModelText
from services.router.evidence.handles import HandleSigner
from services.router.routes.artefact_file import BadArtefact, read
from services.scaler.config import Scaling


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def redis_at(password: Path | None = None, ca: Path | None = None) -> RedisLink:
    settings = RedisSettings(
        prefix="PENNYWEIGHT_CACHE_",
        setting="store",
        instead="memory",
        address="rediss://127.0.0.1:1",
        password_file=password,
        ca_file=ca,
        timeout_seconds=60.0,
    )
    return settings.link(1)


READERS: dict[str, Callable[[Path], Any]] = {
    "keys": Keyring.load,
    "key to show": read_key,
    "yaml": lambda path: load_document(path, Scaling),
    "redis password": redis_at,
    "redis ca": lambda path: redis_at(ca=path),
    "peer ca": lambda path: Peer("localhost:1", tls_ca=path).check(),
    "hash key": lambda path: CacheSettings(hash_key_file=path).hash_key(),
    "handle key": HandleSigner.load,
    "calibration": read,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_a_pipe_is_refused_as_no_plain_file(reader: Callable[[Path], Any], pipe: Path) -> None:
    with pytest.raises((ConfigError, BadArtefact), match="is no plain file"):
        reader(pipe)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_so_is_one_among_the_files_of_a_tokenizer(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for missing in {"tokenizer.json", "tokenizer_config.json"} - {name}:
        (tmp_path / missing).write_text("{}")
    with pytest.raises(ConfigError, match="cannot load the tokenizer"):
        Texts(ModelText).of([str(tmp_path)])


async def test_keys_stay_while_a_pipe_is_in_their_place(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys:\n  - {{tenant: acme, role: caller, sha256: {'a' * 64}}}\n", encoding="utf-8"
    )
    registry = CollectorRegistry()
    keys = KeysInForce(path, registry)
    path.unlink()
    os.mkfifo(path)
    await keys.look()
    assert registry.get_sample_value("pennyweight_keys_refused") == 1.0


def threads_of_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where `redis_link` reads files from now on."""
    threads: list[int] = []

    def noting(path: Path, most: int) -> bytes:
        threads.append(threading.get_ident())
        return read_plain(path, most)

    monkeypatch.setattr(redis_link, "read_plain", noting)
    return threads


async def test_the_password_of_redis_is_read_beside_the_loop() -> None:
    threads: list[int] = []

    def password() -> str:
        threads.append(threading.get_ident())
        return "secret"

    link = RedisLink("redis://h", password=password, timeout_seconds=1.0, connections=1)
    threads.clear()  # that of the start
    provider = link._client.connection_pool.connection_kwargs["credential_provider"]
    assert await provider.get_credentials_async() == ("secret",)
    assert threads
    assert threading.get_ident() not in threads


async def test_a_pipe_in_place_of_the_authority_of_redis_fails_the_connection_alone(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threads_of_reads(monkeypatch)
    link = RedisLink("rediss://h:1", ca_file=pipe, timeout_seconds=1.0, connections=1)
    with pytest.raises(RedisError, match="is no plain file"):
        await link._client.connection_pool.make_connection().connect()
    assert threads
    assert threading.get_ident() not in threads


async def connected(peer: Peer) -> None:
    async with peer.connected(1.0):
        pass


@pytest.mark.parametrize("opens", [Peer.opened, connected])
async def test_a_stream_of_ours_reads_its_authority_beside_the_loop(
    opens: Callable[[Peer], Awaitable[object]], pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    of_thread = asyncio.to_thread

    async def noting(function: Any, *arguments: Any) -> Any:
        there.append(function.__name__ == "_authority")
        return await of_thread(function, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", noting)
    with pytest.raises(OSError, match="is no plain file"):
        await opens(Peer("localhost:1", tls_ca=pipe))
    assert any(there)


def test_whether_somebody_writes_a_file_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert not is_being_written(path)  # there is none
    path.write_text("1")
    assert not is_being_written(path)
    with path.open("a"):
        assert is_being_written(path)
    with path.open("r"):
        assert not is_being_written(path)
    assert not is_being_written(tmp_path)
