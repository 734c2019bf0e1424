"""How fast a cached answer comes: a whole Complete call through router and cache.

Hits, misses on the real small model, and the same with the cache left out, one request at a time
and in turns, for each store of the cache. Redis is left out where it is not installed.
"""

import itertools
import shutil
import time
from collections.abc import Callable
from typing import Any

import grpc

from bench import report
from bench.stack import METADATA, BenchError, Stack, free_port, pool, route, tier
from pennyweight.cache.v1 import cache_pb2, cache_pb2_grpc
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc

CALLS, QUICK_CALLS = 300, 5

Seconds = dict[str, list[float]]


def run(*, quick: bool) -> None:
    """Measures each store."""
    calls = QUICK_CALLS if quick else CALLS
    seen: dict[str, Seconds] = {}
    with Stack() as stack:
        report.say("starting a replica of small")
        scaler = stack.scaler({"small": pool("small")})
        seen["memory"] = _store(stack, scaler, {}, "memory", calls)
        server = shutil.which("redis-server")
        if server is None:
            report.say("redis-server is not installed: its store is left out")
        else:
            url = _redis(stack, server)
            seen["Redis"] = _store(stack, scaler, {"STORE": url}, "redis", calls)
    rows = [
        (
            f"{store}: {name}",
            f"{report.median(values) * 1e3:.2f}",
            f"{report.quantile(values, 0.95) * 1e3:.2f}",
            f"{report.median(seconds['cache left out']) / report.median(values):.1f}x",
        )
        for store, seconds in seen.items()
        for name, values in seconds.items()
    ]
    report.table(
        "A whole Complete call through router and cache, one at a time",
        ("store: what happens", "p50 ms", "p95 ms", "against no cache"),
        rows,
    )
    report.figure("cache.exact_hit_p50", report.median(seen["memory"]["exact hit"]) * 1e3, "ms")
    if "Redis" in seen:
        hit = report.median(seen["Redis"]["exact hit"]) * 1e3
        report.figure("cache.exact_hit_redis_p50", hit, "ms")


def _redis(stack: Stack, server: str) -> str:
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    stack.start("redis", [server, *words, "--dir", str(stack.folder)])
    return f"redis://127.0.0.1:{port}"


def _store(
    stack: Stack, scaler: str, settings: dict[str, object], kind: str, calls: int
) -> Seconds:
    """Measures one store with a cache and a router of its own, which end afterwards."""
    report.say(f"{kind}: starting a cache and a router")
    cache = stack.cache(settings)
    routes = {"tiers": {"small": tier("small")}, "routes": {"asked": route("small", cache=True)}}
    _, address = stack.router(routes, cache=cache, scaler=scaler)
    with grpc.insecure_channel(cache) as channel:
        stats = cache_pb2_grpc.CacheServiceStub(channel).GetStats(
            cache_pb2.GetStatsRequest(), metadata=METADATA, timeout=5
        )
    if kind not in stats.store:
        raise BenchError(f"the cache has the store {stats.store!r}, not {kind!r}")
    with grpc.insecure_channel(address) as channel:
        seconds = _rounds(router_pb2_grpc.RouterServiceStub(channel), kind, calls)
    for name in ("router", "cache"):
        stack.processes.pop(name).end()
    return seconds


def _rounds(stub: Any, kind: str, calls: int) -> Seconds:
    seconds: Seconds = {"exact hit": [], "miss": [], "cache left out": []}
    numbers = itertools.count()
    known = _request(next(numbers))
    _timed(stub, known, pb.CACHE_OUTCOME_MISS)
    _wait_until_stored(stub, known)
    rounds: tuple[tuple[str, Callable[[], pb.CompleteRequest], Any], ...] = (
        ("exact hit", lambda: known, pb.CACHE_OUTCOME_EXACT),
        ("miss", lambda: _request(next(numbers)), pb.CACHE_OUTCOME_MISS),
        (
            "cache left out",
            lambda: _request(next(numbers), pb.CACHE_USE_BYPASS),
            pb.CACHE_OUTCOME_NOT_ASKED,
        ),
    )
    for number in range(calls):
        if number % 100 == 0:
            report.say(f"{kind}: call {number} of {calls}")
        for name, make, outcome in rounds:
            seconds[name].append(_timed(stub, make(), outcome))
    return seconds


def _request(number: int, use: Any = pb.CACHE_USE_UNSPECIFIED) -> pb.CompleteRequest:
    request = pb.CompleteRequest(route="asked", terms=pb.Terms(cache_use=use))
    content = f"Why was my card declined at the shop on the corner, case {number}?"
    request.prompt.messages.add(role=pb.ROLE_USER, content=content)
    return request


def _timed(stub: Any, request: pb.CompleteRequest, expected: Any) -> float:
    started = time.perf_counter()
    response = stub.Complete(request, metadata=METADATA, timeout=30)
    took = time.perf_counter() - started
    if response.summary.decision.cache != expected:
        name = pb.CacheOutcome.Name
        raise BenchError(
            f"the cache said {name(response.summary.decision.cache)}, not {name(expected)}"
        )
    return took


def _wait_until_stored(stub: Any, request: pb.CompleteRequest) -> None:
    """An answer reaches the cache a moment after its caller."""
    for _ in range(100):
        response = stub.Complete(request, metadata=METADATA, timeout=30)
        if response.summary.decision.cache == pb.CACHE_OUTCOME_EXACT:
            return
        time.sleep(0.02)
    raise BenchError("the answer never reached the cache")
