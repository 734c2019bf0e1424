"""Pools of Triton servers that somebody else runs: observed and routed to, never started or ended.

Each server is asked whether it is ready, with a deadline. A DNS name is looked up again and again;
what it no longer names drains. Where a look-up fails, what was known stays.
"""

import asyncio
import functools
import hashlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from services.common.durations import wall_clock
from services.common.kept_up import kept_up
from services.scaler.config import Scaling
from services.scaler.pools.places import MOST_ADDRESSES, External
from services.scaler.pools.pool import Pool
from services.scaler.ports import OnChange, PoolStatus, Replica, ReplicaStatus
from services.scaler.targets.triton_client import TritonClient

log = structlog.get_logger()

ASK_SECONDS = 1.0
"""Between two questions to a server."""
LOOK_UP_SECONDS = 5.0
"""Between two look-ups of a name, and the longest that one may take."""
MISSES = 2
"""Questions in a row that a server leaves without an answer before it is taken to be not ready."""
UNNAMED = "its pool does not name it any more"


class Server(Protocol):
    """Asks one server; see `TritonClient`."""

    async def is_ready(self) -> bool:
        """Whether it says that it takes requests."""

    async def close(self) -> None:
        """Lets go of it."""


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, each host:port. It raises OSError where there are none to be had."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """Asks the system's resolver.

    Raises:
        OSError: it knows no address.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(entry[4][0]) for entry in found})
    return [_joined(one, port) for one in hosts[:MOST_ADDRESSES]]


def ask(address: str, model: str) -> Server:
    """Speaks to a Triton server, which does not publish metrics to us."""
    host, port = _split(address)
    return TritonClient(host, port, 0, model)


@dataclass
class _Known:
    """A server.

    Attributes:
        ready: it said so when it was asked last, or has not answered since a short time.
        misses: questions in a row without that answer.
        since: when we heard of it, in seconds since 1970.
        named: its pool names it.
    """

    address: str
    server: Server
    since: float
    ready: bool = False
    misses: int = 0
    named: bool = True


@dataclass
class _Kept:
    """A pool, and the task that looks after it."""

    pool: Pool
    external: External
    known: dict[str, _Known] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    trouble: str = ""
    looked_up: float = float("-inf")
    resolved: bool = False
    task: asyncio.Task[None] | None = None


class ExternalTarget:
    """See `services.scaler.ports.Target`."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        *,
        resolve: Resolve = look_up,
        server: Callable[[str, str], Server] = ask,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_clock,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._resolve = resolve
        self._server = server
        self._clock = clock
        self._wall = wall
        self._pause = pause
        self._on_change: OnChange = lambda: None
        self._kept: dict[str, _Kept] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._closing: list[Server] = []
        self._take(pools)

    async def open(self, on_change: OnChange) -> None:
        """Asks all servers once, so that the first watcher hears of those that are ready."""
        self._on_change = on_change
        await asyncio.gather(*(self._look(name) for name in self._kept))

    async def run(self) -> None:
        """Looks after all pools until cancelled."""
        for kept in self._kept.values():
            kept.task = None
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self._start_tasks()
                while self._closing:
                    await self._closing.pop().close()
                await self._pause(ASK_SECONDS)

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:  # noqa: ARG002
        """Takes changed settings."""
        self._take({name: pool for name, pool in scaling.pools.items() if pool.external})
        self._start_tasks()
        self._on_change()

    def observe(self) -> Mapping[str, PoolStatus]:
        """Every pool that is configured."""
        return {name: self._status(name, kept) for name, kept in self._kept.items()}

    def resize(
        self,
        pool: str,
        size: int,  # noqa: ARG002 - somebody else's matter
        *,
        draining: Collection[str],  # noqa: ARG002
        drained: Collection[str],
    ) -> None:
        """Forgets servers that have drained; nothing else is ours to do."""
        kept = self._kept.get(pool)
        if kept is None or not drained:
            return
        kept.released |= set(drained)
        for address, known in list(kept.known.items()):
            if not known.named and _id(pool, address) in kept.released:
                self._closing.append(kept.known.pop(address).server)
        self._on_change()

    async def close(self) -> None:
        """Lets go of all servers."""
        servers = [known.server for kept in self._kept.values() for known in kept.known.values()]
        for server in (*servers, *self._closing):
            await server.close()

    def _take(self, pools: Mapping[str, Pool]) -> None:
        for name, kept in list(self._kept.items()):
            if name not in pools:
                if kept.task is not None:
                    kept.task.cancel()
                self._closing += [known.server for known in kept.known.values()]
                del self._kept[name]
        for name, pool in pools.items():
            if pool.external is None:
                continue
            kept = self._kept.setdefault(name, _Kept(pool, pool.external))
            if kept.pool.model != pool.model:  # each is asked for the model
                self._closing += [known.server for known in kept.known.values()]
                kept.known.clear()
            if kept.external != pool.external:
                kept.looked_up, kept.trouble = float("-inf"), ""
            kept.pool, kept.external = pool, pool.external
            if pool.external.addresses:
                self._name(kept, pool.external.addresses)

    def _start_tasks(self) -> None:
        if self._tasks is None:
            return
        for name, kept in self._kept.items():
            if kept.task is None:
                work = kept_up(f"pool {name}", functools.partial(self._keep, name), self._pause)
                kept.task = self._tasks.create_task(work)

    async def _keep(self, name: str) -> None:
        while True:
            await self._look(name)
            # Drawn, so that pools and scalers do not all ask at the same time.
            await self._pause(ASK_SECONDS * (0.75 + random.random() / 2))  # noqa: S311

    async def _look(self, name: str) -> None:
        """Asks all servers of a pool, and what they are where that is due."""
        kept = self._kept.get(name)
        if kept is None:
            return
        await self._look_up(name, kept)
        before = self._status(name, kept)
        asked = list(kept.known.values())
        answers = await asyncio.gather(*(_says_ready(known.server) for known in asked))
        for known, ready in zip(asked, answers, strict=True):
            known.misses = 0 if ready else known.misses + 1
            known.ready = ready or (known.ready and known.misses < MISSES)
        if self._status(name, kept) != before:
            self._on_change()

    async def _look_up(self, name: str, kept: _Kept) -> None:
        dns = kept.external.dns
        if dns is None or self._clock() - kept.looked_up < LOOK_UP_SECONDS:
            return
        kept.looked_up = self._clock()
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                addresses = await self._resolve(*_split(dns))
        except (OSError, TimeoutError) as error:
            trouble = f"{dns} cannot be looked up: {error or 'no answer in time'}"
            if trouble != kept.trouble:
                log.warning("an external pool cannot be looked up", pool=name, reason=trouble)
                kept.trouble = trouble
                self._on_change()
            return
        if kept.external.dns == dns:
            kept.trouble, kept.resolved = "", True
            self._name(kept, addresses[:MOST_ADDRESSES])

    def _name(self, kept: _Kept, addresses: Sequence[str]) -> None:
        """Takes which servers the pool names."""
        kept.resolved = True
        for address in addresses:
            if address not in kept.known:
                server = self._server(address, kept.pool.model)
                kept.known[address] = _Known(address, server, self._wall())
        for known in kept.known.values():
            known.named = known.address in addresses

    def _status(self, name: str, kept: _Kept) -> PoolStatus:
        shown = [self._replica(name, kept, known) for known in kept.known.values()]
        silent = [known.address for known in kept.known.values() if not known.ready]
        trouble = kept.trouble
        if silent and not trouble:
            more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
            trouble = f"{silent[0]}{more} {'is' if len(silent) == 1 else 'are'} not ready"
        return PoolStatus(
            replicas=tuple(one for one in shown if one.replica.id not in kept.released),
            trouble=trouble,
            held="" if kept.resolved else "its servers are not known yet",
            known=kept.resolved,
        )

    @staticmethod
    def _replica(name: str, kept: _Kept, known: _Known) -> ReplicaStatus:
        pool = kept.pool
        replica = Replica(
            id=_id(name, known.address),
            pool=name,
            tier=pool.tier,
            model=pool.model,
            precision=pool.precision,
            capacity=pool.capacity,
            max_in_flight=pool.max_in_flight,
            address=known.address,
            started_at=known.since,
        )
        leaving = "" if known.named else UNNAMED
        return ReplicaStatus(replica, ready=known.ready, leaving=leaving)


async def _says_ready(server: Server) -> bool:
    """Whether it says so; one that cannot be asked does not."""
    with suppress(Exception):  # whatever it is, it is this server's alone
        return await server.is_ready()
    return False


def _id(pool: str, address: str) -> str:
    """The same for a server whichever scaler looks at it."""
    return f"{pool}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
