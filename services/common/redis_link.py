"""The connections to Redis, and whether it can be used; nothing here knows what is kept there.

Operations that fail in a row open a breaker: from then on they fail at once, so that a Redis that
hangs costs nobody its timeout again and again. Only what Redis was asked counts: neither waits for
a turn, which callers take one after another, nor what this process was late for itself; and what
was under way together says one thing, however much it is. Where nobody listens to Redis, the first
operation after a rest tries it. Where somebody does (`RedisLink.tend`), Redis is up only while that
connection is, and only the listener tries again, so that no operation ever waits for the trial.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import structlog
from redis.asyncio import Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError, ResponseError

from services.common.backoff import Backoff
from services.common.breaker import Breaker
from services.common.config import ConfigError
from services.common.fair_semaphore import FairSemaphore
from services.common.lateness import LATE_SHARE, Limit
from services.common.plain_files import MAX_SECRET_BYTES, read_plain

log = structlog.get_logger()

Script: TypeAlias = AsyncScript

CONNECT_SECONDS = 1.0
LISTEN_SECONDS = 0.25
"""How soon the listener notices that operations have failed."""
FAILURES_IN_A_ROW = 3
REST = Backoff(0.1, 1.0)
"""Between trials of a Redis that nobody listens to."""
PAUSE = Backoff(0.1, 2.0)
"""Between a listener's connections."""
LOG_EVERY_SECONDS = 10.0


class RedisFailed(Exception):
    """Redis is down, too slow, or refuses."""


class RedisRefused(RedisFailed):
    """Redis is there and refuses: no memory left, read-only, another type of value, no such right.

    The message is Redis's own.
    """


class _Credentials(CredentialProvider):
    """What each new connection says who it is; the password that was read last where none can be.

    So that one that is changed is taken up without a restart.
    """

    def __init__(self, user: str, password: Callable[[], str]) -> None:
        self._user = user
        self._read = password
        self._password = password()

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)  # a disk may be slow

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        with suppress(ConfigError):
            self._password = self._read()
        return (self._user, self._password) if self._user else (self._password,)


class _Trusting(SSLConnection):
    """A connection that trusts whom a file names when it is made."""

    def __init__(self, *, ca_file: Path, **options: Any) -> None:
        super().__init__(**options)
        self._ca_file = ca_file

    async def _connect(self) -> None:
        read = await asyncio.to_thread(read_plain, self._ca_file, MAX_SECRET_BYTES)
        self.ssl_context.ca_data = read.decode("ascii")
        self.ssl_context.context = None
        await asyncio.to_thread(self.ssl_context.get)
        await super()._connect()  # type: ignore[no-untyped-call]


def _without_user(url: str) -> tuple[str, str]:
    """The user that an address names, empty for none, and the address without."""
    scheme, _, rest = url.partition("://")
    user, _, place = rest.rpartition("@")
    return unquote(user), f"{scheme}://{place}"


class RedisLink:
    """A bounded number of connections, and perhaps one that listens. State of the process.

    Attributes:
        tried: set once a listener knows whether Redis is there.
    """

    def __init__(
        self,
        url: str,
        *,
        password: Callable[[], str] | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
        drawn: Callable[[], float] = random.random,
    ) -> None:
        """Does not connect yet.

        Args:
            url: of Redis.
            password: reads that to it, anew for each connection; None for none.
            ca_file: PEM bundle that signed its certificate; None for the system's.
            timeout_seconds: longest that an operation may take.
            connections: most operations at a time; more wait, and callers take turns.
            clock: seconds that only grow.
            drawn: uniformly from [0, 1], spreads rests.

        Raises:
            ValueError: `url` is no address of a Redis.
        """
        options: dict[str, Any] = {"ca_file": ca_file} if ca_file else {}
        if password is not None:
            user, url = _without_user(url)
            options["credential_provider"] = _Credentials(user, password)
        self._timeout_seconds = timeout_seconds
        self._turns = FairSemaphore(connections)
        self._client = Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # every use is under a timeout of its own
            socket_keepalive=True,
            **options,
        )
        if ca_file:
            self._client.connection_pool.connection_class = _Trusting
        self._clock = clock
        self._drawn = drawn
        self._breaker = Breaker(FAILURES_IN_A_ROW, REST)
        self._failed_at = -math.inf  # the latest failure that counted
        self._listening: bool | None = None  # None where nobody ever did
        self._quiet_until = 0.0
        self.tried = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether an operation may be tried now; else it fails at once."""
        if self._listening is None:
            return self._breaker.allows(self._clock())
        return self._listening and self._breaker.closed

    def script(self, lua: str) -> Script:
        """A script that is loaded when Redis does not have it."""
        return self._client.register_script(lua)

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], *, whose: Hashable = ""
    ) -> Any:
        """Runs a script, in a turn of the caller `whose` it is.

        Raises:
            RedisRefused: Redis says why not.
            RedisFailed: within the timeout there was no result.
        """
        return await self._timely(lambda: script(keys=keys, args=args), whose)

    async def get(self, key: str, *, whose: Hashable = "") -> bytes | None:
        """Reads a value, in a turn of the caller `whose` it is.

        Raises:
            RedisRefused: Redis says why not.
            RedisFailed: within the timeout there was no result.
        """
        value: bytes | None = await self._timely(lambda: self._client.get(key), whose)
        return value

    async def tend(
        self, channel: str, heard: Callable[[bytes], None], resumed: Callable[[], None]
    ) -> None:
        """Listens to a channel, again and again, until cancelled.

        `resumed` is called whenever listening begins: what was said before was not heard.
        """
        self._listening = False
        failures = 0
        while True:
            began = self._clock()
            try:
                await self._listen(channel, heard, resumed)
            except (RedisError, OSError, TimeoutError) as error:
                self._warn(error)
            finally:
                self._listening = False
                self.tried.set()
            lasted = self._clock() - began > PAUSE.cap_seconds
            failures = 1 if lasted else failures + 1
            await asyncio.sleep(PAUSE.seconds(failures, self._drawn()))

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
            self._breaker = self._breaker.succeeded()
            self._listening = True
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

    async def _timely(self, operation: Callable[[], Awaitable[Any]], whose: Hashable) -> Any:
        await self._turns.take(whose)
        try:
            if not self.up:
                raise RedisFailed
            self._breaker = self._breaker.tried(self._clock())
            return await self._timed(operation)
        finally:
            self._turns.give_back()

    async def _timed(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        seconds, timeout = self._timeout_seconds, asyncio.timeout(None)
        limit = Limit(seconds, seconds * LATE_SHARE, lambda: timeout.reschedule(0.0))
        began = self._clock()
        try:
            async with timeout:
                result = await operation()
        except ResponseError as error:  # it is there, but refuses: no memory left, read-only
            self._warn(error)
            self._works()
            raise RedisRefused(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            if not (timeout.expired() and limit.late):
                self._fails(error, began)
            raise RedisFailed from error
        finally:
            limit.cancel()
        self._works()
        return result

    def _fails(self, error: Exception, began: float) -> None:
        """An operation that began then has failed.

        One that was under way when another failed is no second failure in a row: whatever Redis did
        in that moment, all of them suffer from it.
        """
        self._warn(error)
        if began < self._failed_at:
            return
        self._failed_at = self._clock()
        self._breaker = self._breaker.failed(self._failed_at, self._drawn())

    def _works(self) -> None:
        if not self._breaker.closed:
            log.info("redis answers again")
        self._breaker = self._breaker.succeeded()

    def _warn(self, error: Exception) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_EVERY_SECONDS
            log.warning("redis failed", error=f"{type(error).__name__}: {error}")
