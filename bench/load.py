"""Load: as many calls at a time as told, for a while, each followed by the next."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.http2 import Call, Client


@dataclass
class Result:
    """What came of it: calls and messages that ended in `seconds`, and each call's seconds."""

    seconds: float
    calls: int = 0
    messages: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)


class Load:
    """Keeps calls in flight over a few connections.

    Args:
        clients: connections, used in turns.
        headers: request headers of the method.
        request: makes the next request, serialised.
        succeeded: whether a call's last message is the one that ends an answer.
    """

    def __init__(
        self,
        clients: list[Client],
        headers: bytes,
        request: Callable[[], bytes],
        succeeded: Callable[[Call], bool],
    ) -> None:
        self._clients = clients
        self._headers = headers
        self._request = request
        self._succeeded = succeeded
        self._result = Result(0)
        self._running = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def run(self, concurrency: int, warm_up: float, seconds: float) -> Result:
        """Calls for `warm_up` seconds unseen, then for `seconds`; calls in flight then finish."""
        self._stopping = False
        self._idle.clear()
        for number in range(concurrency):
            self._running += 1
            self._next(self._clients[number % len(self._clients)])
        await asyncio.sleep(warm_up)
        self._result, started = Result(0), time.perf_counter()
        await asyncio.sleep(seconds)
        result, self._result = self._result, Result(0)
        result.seconds = time.perf_counter() - started
        self._stopping = True
        await self._idle.wait()
        return result

    def _next(self, client: Client) -> None:
        started = time.perf_counter()

        def ended(call: Call) -> None:
            result = self._result
            result.calls += 1
            result.latencies.append(time.perf_counter() - started)
            if not self._succeeded(call):
                result.failed += 1
            if self._stopping:
                self._running -= 1
                if not self._running:
                    self._idle.set()
            else:
                self._next(client)

        client.call(self._headers, self._request(), ended, self._count)

    def _count(self, _: bytes) -> None:
        self._result.messages += 1
