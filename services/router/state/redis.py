"""The shared state of several routers, in Redis; see `state.SharedState`.

    pennyweight:router:{levers}          a hash: the record of each lever
    pennyweight:router:{levers}:changes  how often any of them was changed
    pennyweight:router:kept:<key>        a value that is kept for a while

Each change is one script, so nothing comes between a look and what follows from it. Redis must
keep what it is told (``appendonly yes``); evicting is for values with a time to live at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.common.config import ConfigError
from services.common.errors import Unavailable

log = structlog.get_logger()

LEVERS = "pennyweight:router:{levers}"
CHANGES = f"{LEVERS}:changes"
KEPT = "pennyweight:router:kept:"

Told: TypeAlias = bytes | str | int

CONNECTIONS = 8
CLOSE_SECONDS = 1.0

# Keys: levers, changes.
READ = "return {redis.call('GET', KEYS[2]) or '', redis.call('HGETALL', KEYS[1])}"

# Keys: levers, changes. ARGV: name, the record before or '', the record after.
SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then return {0, now} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('INCR', KEYS[2])
return {1, ARGV[3]}
"""

# Key: the value's. ARGV: value, ms.
KEEP_ONCE = """
local before = redis.call('GET', KEYS[1])
if before then return before end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""


class RedisState:
    """A bounded number of connections. State of the process, not of a request."""

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float,
    ) -> None:
        """Does not connect yet.

        Raises:
            ConfigError: `url` is no address of a Redis.
        """
        options: dict[str, Any] = {"ssl_ca_certs": str(ca_file)} if ca_file else {}
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._failing = False
        try:
            self._client = Redis.from_url(
                url,
                password=password,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,  # every use is under a timeout of its own
                socket_keepalive=True,
                **options,
            )
        except ValueError as error:
            raise ConfigError("environment", [f"state: {error}"]) from error
        self._read = self._client.register_script(READ)
        self._swap = self._client.register_script(SWAP)
        self._keep_once = self._client.register_script(KEEP_ONCE)

    async def changes(self) -> str:
        """See `SharedState.changes`."""
        return _text(await self._use(lambda: self._client.get(CHANGES)))

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """See `SharedState.records`."""
        changes, flat = await self._use(lambda: self._read(keys=[LEVERS, CHANGES]))
        names = [name.decode(errors="replace") for name in flat[::2]]
        return _text(changes), dict(zip(names, flat[1::2], strict=True))

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """See `SharedState.swap`."""
        args: list[Told] = [name, before or b"", after]
        done, now = await self._use(lambda: self._swap(keys=[LEVERS, CHANGES], args=args))
        return bool(done), now

    async def keep_once(self, key: str, value: bytes, seconds: float) -> bytes | None:
        """See `ports.Keeper.keep_once`."""
        args: list[Told] = [value, max(1, round(seconds * 1000))]
        before: bytes | None = await self._use(
            lambda: self._keep_once(keys=[KEPT + key], args=args)
        )
        return before

    async def kept(self, key: str) -> bytes | None:
        """See `ports.Keeper.kept`."""
        value: bytes | None = await self._use(lambda: self._client.get(KEPT + key))
        return value

    async def close(self) -> None:
        """Closes all connections."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.aclose()

    async def _use(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        """Asks Redis within the timeout, waiting for a free connection included.

        Raises:
            Unavailable: there was no result.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turns:
                result = await operation()
        except (RedisError, OSError, TimeoutError) as error:
            if not self._failing:
                self._failing = True
                log.warning("redis failed", error=f"{type(error).__name__}: {error}")
            message = "the state that routers share cannot be reached; try again"
            raise Unavailable(message, reason="STATE_UNREACHABLE") from error
        if self._failing:
            self._failing = False
            log.info("redis is back")
        return result


def _text(counted: bytes | None) -> str:
    return (counted or b"").decode()
