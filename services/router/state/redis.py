"""The shared state of several routers, in Redis; see `store.SharedState`.

    pennyweight:router:{levers}          a hash: the record of each lever
    pennyweight:router:{levers}:changes  how often any of them was changed
    pennyweight:router:kept:<key>        a value that is kept for a while

Each change is one script, so nothing comes between a look and what follows from it. Redis must
keep what it was given (``appendonly yes``); evicting is for values with a time to live at most.
"""

from collections.abc import Awaitable, Mapping
from typing import TypeVar

from services.common.errors import Unavailable
from services.common.redis_link import RedisFailed, RedisLink

LEVERS = "pennyweight:router:{levers}"
CHANGES = f"{LEVERS}:changes"
KEPT = "pennyweight:router:kept:"

T = TypeVar("T")

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
    """The state over a link that nobody listens to: routers look often. State of the process."""

    def __init__(self, link: RedisLink) -> None:
        """Owns the link: closes it."""
        self._link = link
        self._read = self._link.script(READ)
        self._swap = self._link.script(SWAP)
        self._keep_once = self._link.script(KEEP_ONCE)

    async def changes(self) -> str:
        """See `SharedState.changes`."""
        return _text(await _reached(self._link.get(CHANGES)))

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """See `SharedState.records`."""
        changes, flat = await _reached(self._link.run(self._read, (LEVERS, CHANGES), ()))
        names = [name.decode(errors="replace") for name in flat[::2]]
        return _text(changes), dict(zip(names, flat[1::2], strict=True))

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """See `SharedState.swap`."""
        args = (name, before or b"", after)
        done, now = await _reached(self._link.run(self._swap, (LEVERS, CHANGES), args))
        return bool(done), now

    async def keep_once(self, key: str, value: bytes, seconds: float) -> bytes | None:
        """See `ports.Keeper.keep_once`."""
        args = (value, max(1, round(seconds * 1000)))
        before: bytes | None = await _reached(self._link.run(self._keep_once, (KEPT + key,), args))
        return before

    async def kept(self, key: str) -> bytes | None:
        """See `ports.Keeper.kept`."""
        return await _reached(self._link.get(KEPT + key))

    async def close(self) -> None:
        """Closes all connections."""
        await self._link.close()


async def _reached(use: Awaitable[T]) -> T:
    """What Redis says.

    Raises:
        Unavailable: it said nothing in time, or has not for a while and is left alone.
    """
    try:
        return await use
    except RedisFailed as error:
        message = "the state that routers share cannot be reached; try again"
        raise Unavailable(message, reason="STATE_UNREACHABLE") from error


def _text(counted: bytes | None) -> str:
    return (counted or b"").decode()
