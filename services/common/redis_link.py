"""The connections to Redis, and whether it can be used; nothing here knows of entries or leases.

Redis is up while one connection listens to it. When that breaks, or operations fail in a row, it is
down: operations fail at once, and only the listener tries again, more and more patiently. So nobody
who asks ever waits for longer than one operation may take.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError

log = structlog.get_logger()

Script: TypeAlias = AsyncScript

CONNECT_SECONDS = 1.0
LISTEN_SECONDS = 0.25
"""How soon the listener notices that operations have failed."""
FAILURES_IN_A_ROW = 3
MIN_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 2.0
LOG_EVERY_SECONDS = 1.0


class RedisFailed(Exception):
    """Redis is down, too slow, or refuses."""


class RedisLink:
    """A bounded number of connections, and one that listens."""

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float,
        connections: int,
    ) -> None:
        options: dict[str, Any] = {"ssl_ca_certs": str(ca_file)} if ca_file else {}
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(connections)
        self._client = Redis.from_url(
            url,
            password=password,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # every use is under a timeout of its own
            socket_keepalive=True,
            **options,
        )
        self._failures = 0
        self._quiet_until = 0.0
        self.up = False
        self.tried = asyncio.Event()

    def script(self, lua: str) -> Script:
        """A script that is loaded when Redis does not have it."""
        return self._client.register_script(lua)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Runs a script.

        Raises:
            RedisFailed: within the timeout there was no result.
        """
        return await self._timely(lambda: script(keys=keys, args=args))

    async def get(self, key: str) -> bytes | None:
        """Reads a value.

        Raises:
            RedisFailed: within the timeout there was no result.
        """
        value: bytes | None = await self._timely(lambda: self._client.get(key))
        return value

    async def tend(
        self, channel: str, heard: Callable[[bytes], None], resumed: Callable[[], None]
    ) -> None:
        """Listens to a channel, again and again, until cancelled.

        `resumed` is called whenever listening begins: what was said before was not heard.
        """
        pause = MIN_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            try:
                await self._listen(channel, heard, resumed)
            except (RedisError, OSError, TimeoutError) as error:
                self._warn(error)
            finally:
                self.up = False
                self.tried.set()
            if time.monotonic() - began > MAX_PAUSE_SECONDS:
                pause = MIN_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def close(self) -> None:
        """Closes all connections."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._client.aclose()

    async def _listen(
        self, channel: str, heard: Callable[[bytes], None], resumed: Callable[[], None]
    ) -> None:
        listener = self._client.pubsub()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await listener.subscribe(channel)
                while await listener.get_message(timeout=CONNECT_SECONDS) is None:
                    pass  # the first message confirms the subscription
            self._failures = 0
            self.up = True
            self.tried.set()
            log.info("redis is up")
            resumed()
            while self.up:
                message = await listener.get_message(timeout=LISTEN_SECONDS)
                if message is not None and message["type"] == "message":
                    heard(message["data"])
        finally:
            with suppress(RedisError, OSError):
                await listener.aclose()  # type: ignore[no-untyped-call]

    async def _timely(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turns:  # a queue of our own making says nothing about Redis
            if not self.up:
                raise RedisFailed
            return await self._timed(operation)

    async def _timed(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await operation()
        except ResponseError as error:  # it is there, but refuses: no memory left, read-only
            self._warn(error)
            raise RedisFailed from error
        except (RedisError, OSError, TimeoutError) as error:
            self._warn(error)
            self._failures += 1
            if self._failures >= FAILURES_IN_A_ROW:
                self.up = False
            raise RedisFailed from error
        self._failures = 0
        return result

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_EVERY_SECONDS
            log.warning(
                "redis failed; answering as if nothing were stored",
                error=f"{type(error).__name__}: {error}",
            )
