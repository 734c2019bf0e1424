"""What the router adds to a request, and how many it carries on one core.

The router has a core of its own; replica, cache and load generator share the other. Rates are of a
router that is asked for more than it can do. Where other work runs on the machine the router does
not get all of its core: the share it had and the share it waited for are printed beside each rate.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import uvloop
from tritonclient.grpc import service_pb2

from bench import first_token, report
from bench.http2 import Call, Client, request_headers
from bench.load import Load, Result
from bench.stack import (
    BenchError,
    Process,
    Stack,
    Usage,
    route,
    router_headers,
    tier,
)
from bench.triton import STREAM_INFER, infer_request
from pennyweight.router.v1 import router_pb2 as pb

LOAD_CORES, ROUTER_CORES = (0,), (1,)
CONNECTIONS = 4
CONCURRENCY = 32

ELSEWHERE = (
    ("LiteLLM", "154 calls/s", "1,700 messages/s"),
    ("Portkey gateway", "950 calls/s", ""),
    ("sglang-router", "9,760 calls/s", "25,000 messages/s"),
)


@dataclass(frozen=True)
class Size:
    """How long all of it takes."""

    pairs: int
    rounds: int
    warm_up: float
    seconds: float


FULL = Size(pairs=200, rounds=5, warm_up=1.0, seconds=4.0)
QUICK = Size(pairs=0, rounds=1, warm_up=0.1, seconds=0.4)


@dataclass(frozen=True)
class Kind:
    """One kind of load: what is called with what, and what counts as success."""

    name: str
    headers: bytes
    request: Callable[[], bytes]
    succeeded: Callable[[Call], bool]


@dataclass(frozen=True)
class Round:
    """One measured stretch of one kind."""

    result: Result
    router: Usage
    load: Usage


# --- rates on a scripted replica ---------------------------------------------------------------


def rates(size: Size, *, cores: bool) -> None:
    """Complete calls and streamed messages a second."""
    with Stack() as stack:
        report.say("starting a scripted replica, a cache and a router")
        load_cores, router_cores = (LOAD_CORES, ROUTER_CORES) if cores else ((), ())
        scripted = stack.scripted(tokens=64, pieces=64, cores=load_cores)
        router, address = stack.router(
            {
                "tiers": {"scripted": tier("scripted")},
                "routes": {
                    "cached": route("scripted", cache=True),
                    "uncached": route("scripted", cache=False),
                },
            },
            cache=stack.cache(cores=load_cores),
            scaler=scripted["scaler"],
            cores=router_cores,
        )
        rounds = uvloop.run(_rates(size, router, address, scripted["replica"]))
    _print_rates(rounds)


async def _rates(size: Size, router: Process, address: str, replica: str) -> dict[str, list[Round]]:
    through = [await Client.connect(address) for _ in range(CONNECTIONS)]
    direct = [await Client.connect(replica)]
    rounds: dict[str, list[Round]] = {}
    for number in range(size.rounds):
        for kind in _kinds(address):
            clients = direct if kind.name.startswith("direct") else through
            load = Load(clients, kind.headers, kind.request, kind.succeeded)
            measured = await _measured(size, load, router)
            rounds.setdefault(kind.name, []).append(measured)
            result = measured.result
            report.say(
                f"round {number + 1} of {size.rounds}: {kind.name}: "
                f"{result.calls / result.seconds:,.0f} calls/s, "
                f"{result.messages / result.seconds:,.0f} messages/s, router "
                f"{measured.router.processor / measured.router.at:.0%} of its core"
            )
            if result.failed:
                raise BenchError(f"{result.failed} of {result.calls} calls failed ({kind.name})")
    for client in (*through, *direct):
        await client.close()
    return rounds


async def _measured(size: Size, load: Load, router: Process) -> Round:
    running = asyncio.create_task(load.run(CONCURRENCY, size.warm_up, size.seconds))
    await asyncio.sleep(size.warm_up)
    before, own = router.usage(), _own_usage()
    await asyncio.sleep(size.seconds)
    used, spent = router.usage().since(before), _own_usage().since(own)
    return Round(await running, used, spent)


def _own_usage() -> Usage:
    return Usage(time.monotonic(), time.process_time(), 0.0)


def _kinds(address: str) -> list[Kind]:
    complete, generate = router_headers("Complete", address), router_headers("Generate", address)
    whole = pb.CompleteRequest
    tokens = [300 + number for number in range(24)]
    ask = infer_request("scripted", tokens, output_tokens=64, streaming=True)
    numbers = itertools.count(time.time_ns() % 1_000_000_000)

    def unique(route_name: str, kind: type) -> Callable[[], bytes]:
        fixed = kind(route=route_name, prompt=pb.Prompt())
        said = fixed.prompt.messages.add(role=pb.ROLE_USER)

        def make() -> bytes:
            said.content = f"My card was declined at the shop on the corner, case {next(numbers)}."
            return bytes(fixed.SerializeToString())

        return make

    return [
        Kind("Complete, cache on", complete, unique("cached", whole), _has_text),
        Kind("Complete, cache off", complete, unique("uncached", whole), _has_text),
        Kind(
            "Generate, cache off",
            generate,
            unique("uncached", pb.GenerateRequest),
            _is_finished,
        ),
        Kind(
            "direct, streamed",
            request_headers(STREAM_INFER, address),
            lambda: ask,
            _is_final,
        ),
    ]


def _has_text(call: Call) -> bool:
    return call.messages == 1 and bool(pb.CompleteResponse.FromString(call.last).text)


def _is_finished(call: Call) -> bool:
    return bool(pb.GenerateResponse.FromString(call.last).HasField("finished"))


def _is_final(call: Call) -> bool:
    response = service_pb2.ModelStreamInferResponse.FromString(call.last).infer_response
    return bool(response.parameters["triton_final_response"].bool_param)


def _print_rates(rounds: dict[str, list[Round]]) -> None:
    rows, rate = [], {}
    for name, measured in rounds.items():
        counts = [
            one.result.calls if name.startswith("Complete") else one.result.messages
            for one in measured
        ]
        seen = [count / one.result.seconds for count, one in zip(counts, measured, strict=True)]
        cost = report.median(
            [one.router.processor / max(1, n) for n, one in zip(counts, measured, strict=True)]
        )
        rate[name] = report.median(seen)
        latencies = [second for one in measured for second in one.result.latencies]
        through = not name.startswith("direct")
        rows.append(
            (
                name,
                f"{rate[name]:,.0f}",
                f"{min(seen):,.0f}-{max(seen):,.0f}",
                f"{cost * 1e6:,.0f}" if through else "",
                f"{1 / cost:,.0f}" if through and cost else "",
                _share([one.router.processor / one.router.at for one in measured]),
                _share([one.router.waited / one.router.at for one in measured]),
                _share([one.load.processor / one.load.at for one in measured]),
                f"{report.median(latencies) * 1e3:,.0f}" if latencies else "",
            )
        )
    report.table(
        "What the router carries on one core: calls/s of Complete, messages/s of Generate",
        (
            "load",
            "median",
            "rounds",
            "router us",
            "full core",
            "had",
            "waited",
            "client",
            "p50 ms",
        ),
        rows,
        note=(
            "router us: its processor time for one call or message. full core: the rate this\n"
            "implies if nothing else had run on its core. had, waited: shares of the time in\n"
            "which it had its core, or could have run and waited for it. client: share of a core\n"
            "that the load generator used. 32 calls at a time; a streamed answer has 64 pieces."
        ),
    )
    report.table(
        "For scale, measured elsewhere or published, on such a core",
        ("gateway", "whole answers", "streamed"),
        ELSEWHERE,
    )
    report.figure("hop.complete_calls", rate["Complete, cache on"], "/s")
    report.figure("hop.complete_calls_uncached", rate["Complete, cache off"], "/s")
    report.figure("hop.streamed_messages", rate["Generate, cache off"], "/s")


def _share(values: list[float]) -> str:
    return f"{report.median(values):.0%}"


def run(*, quick: bool) -> None:
    """Runs both parts; the quick run leaves the real Triton out."""
    size = QUICK if quick else FULL
    if size.pairs:
        first_token.measure(size.pairs)
    rates(size, cores=(os.cpu_count() or 1) > 1)
