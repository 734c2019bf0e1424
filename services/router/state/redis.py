"""The shared state of several routers, in Redis; see `store.SharedState`.

    pennyweight:router:{levers}          a hash: the record of each lever
    pennyweight:router:{levers}:changes  how often any of them was changed
    pennyweight:router:kept:<key>        a value that is kept for a while
    pennyweight:router:held:<tenant>     a sorted set: the keys of a tenant's values, by their end

Each change is one script, so nothing comes between a look and what follows from it. Redis must
keep what it was given (``appendonly yes``); evicting is for values with a time to live at most.
Where Redis refuses, callers are told why: that it is full or read-only, or which key holds
something of another kind.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from redis.exceptions import AuthenticationError

from services.common.errors import Unavailable
from services.common.redis_link import RedisFailed, RedisLink, RedisRefused

LEVERS = "pennyweight:router:{levers}"
CHANGES = f"{LEVERS}:changes"
KEPT = "pennyweight:router:kept:"
HELD = "pennyweight:router:held:"

MAX_KEPT = 200_000
"""Values of one tenant; beyond it those that would run out first are given up."""

T = TypeVar("T")

# Keys: levers, changes.
READ = "return {redis.call('GET', KEYS[2]) or '', redis.call('HGETALL', KEYS[1])}"

# Keys: levers, changes. ARGV: name, the record before or '', the record after.
SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then return {0, now} end
redis.call('INCR', KEYS[2])  -- first: where it is refused, nothing has changed
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {1, ARGV[3]}
"""

# Keys: any. What each holds: the type, and whether it is a whole number.
KINDS = """
local kinds = {}
for at, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  local whole = kind == 'string' and string.match(redis.call('GET', key), '^-?%d+$')
  kinds[at] = {kind, whole and 1 or 0}
end
return kinds
"""

REFUSALS = {
    "maxmemory": "Redis is out of memory",
    "read only replica": "Redis is read-only, as a replica is",
    "MISCONF": "Redis cannot write to its disk",
    "NOREPLICAS": "Redis has too few replicas to take writes",
    "can't run this command": "Redis does not permit it to this user",
    "no permissions": "Redis does not permit it to this user",
}
"""By what Redis says; its client takes the code away from some errors."""

MAX_SAID = 100

# Keys: the value's, its tenant's. ARGV: value, ms, most values of the tenant.
KEEP_ONCE = """
local before = redis.call('GET', KEYS[1])
if before then return before end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])  -- first: where it is refused, nothing changed
local time = redis.call('TIME')
local now, lasts = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + lasts, KEYS[1])
local over = redis.call('ZCARD', KEYS[2]) - ARGV[3]
if over > 0 then
  local gone = redis.call('ZPOPMIN', KEYS[2], over)
  for at = 1, #gone, 2 do redis.call('DEL', gone[at]) end
end
if redis.call('PTTL', KEYS[2]) < lasts then redis.call('PEXPIRE', KEYS[2], lasts) end
return false
"""


class RedisState:
    """The state over links that nobody listens to: routers look often. State of the process."""

    def __init__(self, link: RedisLink, levers: RedisLink, *, max_kept: int = MAX_KEPT) -> None:
        """Owns both links: closes them.

        Args:
            link: for what is kept, which tenants cause.
            levers: for the records of levers, which wait for none of that.
            max_kept: values kept of one tenant at most.
        """
        self._link = link
        self._levers = levers
        self._max_kept = max_kept
        self._read = self._levers.script(READ)
        self._swap = self._levers.script(SWAP)
        self._keep_once = self._link.script(KEEP_ONCE)
        self._locked_out = ""

    async def changes(self) -> str:
        """See `SharedState.changes`."""
        return _text(await self._reached(self._levers.get(CHANGES)))

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """See `SharedState.records`."""
        changes, flat = await self._reached(self._levers.run(self._read, (LEVERS, CHANGES), ()))
        names = [name.decode(errors="replace") for name in flat[::2]]
        return _text(changes), dict(zip(names, flat[1::2], strict=True))

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """See `SharedState.swap`."""
        args = (name, before or b"", after)
        done, now = await self._reached(self._levers.run(self._swap, (LEVERS, CHANGES), args))
        return bool(done), now

    async def keep_once(
        self,
        key: str,
        value: bytes,
        seconds: float,
        *,
        tenant: str,
    ) -> bytes | None:
        """See `ports.Keeper.keep_once`."""
        args = (value, max(1, round(seconds * 1000)), self._max_kept)
        name = KEPT + key
        use = self._link.run(self._keep_once, (name, HELD + tenant), args, whose=tenant)
        before: bytes | None = await self._reached(use, name)
        return before

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        """See `ports.Keeper.kept`."""
        return await self._reached(self._link.get(KEPT + key, whose=tenant), KEPT + key)

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(self._link.close(), self._levers.close())

    async def _reached(self, use: Awaitable[T], kept: str = "") -> T:
        """What Redis says; `kept` is the key where it is none of the levers.

        Raises:
            Unavailable: it refuses, with why; or it said nothing in time, or has not for a while
                and is left alone.
        """
        try:
            found = await use
        except RedisRefused as refused:
            raise _refused(await self._why(str(refused), kept)) from refused
        except RedisFailed as error:
            if isinstance(error.__cause__, AuthenticationError):
                self._locked_out = "Redis refuses our user or password"
            elif error.__cause__ is not None:  # else it is only left alone for a while
                self._locked_out = ""
            if self._locked_out:
                raise _refused(self._locked_out) from error
            message = "the state that routers share cannot be reached; try again"
            raise Unavailable(message, reason="STATE_UNREACHABLE") from error
        self._locked_out = ""
        return found

    async def _why(self, said: str, kept: str) -> str:
        """Why Redis refuses, for a person."""
        for words, sentence in REFUSALS.items():
            if words in said:
                return sentence
        wanted = {kept: "string"} if kept else {LEVERS: "hash", CHANGES: "whole number"}
        try:
            link = self._link if kept else self._levers
            kinds = await link.run(link.script(KINDS), tuple(wanted), ())
        except RedisFailed:
            kinds = []
        for (key, wants), (kind, whole) in zip(wanted.items(), kinds, strict=False):
            found = "whole number" if whole and wants != "string" else kind.decode()
            if found not in {wants, "none"}:
                return f"its key {key} holds a {found}, where a {wants} belongs"
        return f"Redis refuses: {said[:MAX_SAID]}"


def _refused(why: str) -> Unavailable:
    message = f"the state that routers share cannot be used: {why}"
    return Unavailable(message, reason="STATE_REFUSED")


def _text(counted: bytes | None) -> str:
    return (counted or b"").decode()
