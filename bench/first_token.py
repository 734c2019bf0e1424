"""What the router adds to the time to the first token: the first part of `hop`.

One request at a time, the same client straight to the replica and through the router, in turns: on
the real Triton with the small model, and on a scripted replica, which shows the router's own part.
"""

import asyncio
import itertools
import time
from collections.abc import Callable

import grpc
import uvloop

from bench import report
from bench.http2 import Client, request_headers
from bench.stack import METADATA, REPOSITORY, BenchError, Stack, pool, route, router_headers, tier
from bench.triton import STREAM_INFER, infer_request, token_count
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from services.router.engines.tokenizer import ModelText
from services.router.policy.prompts import Message

ON = "router, cache on"

PAUSE_SECONDS = 0.02
"""Before each request, so that all ways find the replica at rest: one that has just answered is
quicker, and only the direct way would come soon enough to find it so."""


Ways = dict[str, list[float]]


def measure(pairs: int) -> None:
    """What the router adds to the time to the first token, one request at a time."""
    real, scripted = _real(pairs), _scripted(pairs)
    rows = []
    for replica, seen in (("Triton", real), ("scripted", scripted)):
        direct = seen["direct"]
        rows += [
            (
                f"{replica}: {name}",
                f"{report.quantile(values, 0.1) * 1e3:.2f}",
                f"{report.median(values) * 1e3:.2f}",
                f"{report.quantile(values, 0.95) * 1e3:.2f}",
                "" if values is direct else f"{_added(values, direct, 0.1):.2f}",
                "" if values is direct else f"{_added(values, direct, 0.5):.2f}",
            )
            for name, values in seen.items()
        ]
    report.table(
        "Time to the first token, one request at a time, ms",
        ("replica: way", "p10", "p50", "p95", "added p10", "added p50"),
        rows,
        note=(
            f"{pairs} requests each way, in turns, on a replica of small on Triton and on a\n"
            "scripted one that answers at once. p10: with the least in its way."
        ),
    )
    report.figure("hop.added_ttft_p50", _added(real[ON], real["direct"], 0.5), "ms")
    report.figure("hop.added_ttft_p10", _added(real[ON], real["direct"], 0.1), "ms")
    alone = _added(scripted[ON], scripted["direct"], 0.5)
    report.figure("hop.added_ttft_scripted_p50", alone, "ms")


def _added(values: list[float], direct: list[float], q: float) -> float:
    return (report.quantile(values, q) - report.quantile(direct, q)) * 1e3


def _real(pairs: int) -> Ways:
    with Stack() as stack:
        report.say("starting a replica of small, a cache and a router")
        # Without reuse of prompts nobody's first token is the cheaper for what came before.
        scaler = stack.scaler({"small": pool("small", enable_kv_cache_reuse=False)})
        _, address = stack.router(_routes("small"), cache=stack.cache(), scaler=scaler)
        return uvloop.run(_first_tokens(pairs, "small", address, _replica_address(scaler)))


def _scripted(pairs: int) -> Ways:
    with Stack() as stack:
        report.say("starting a scripted replica, a cache and a router")
        scripted = stack.scripted(tokens=16, pieces=16)
        routes = _routes("scripted")
        _, address = stack.router(routes, cache=stack.cache(), scaler=scripted["scaler"])
        return uvloop.run(_first_tokens(pairs, "scripted", address, scripted["replica"]))


def _routes(model: str) -> dict[str, object]:
    return {
        "tiers": {model: tier(model)},
        "routes": {"cached": route(model, cache=True), "uncached": route(model, cache=False)},
    }


def _replica_address(scaler: str) -> str:
    with grpc.insecure_channel(scaler) as channel:
        pools = scaler_pb2_grpc.ScalerServiceStub(channel).ListPools(
            scaler_pb2.ListPoolsRequest(), metadata=METADATA, timeout=5
        )
    return pools.pools[0].replicas[0].address


async def _first_tokens(pairs: int, model: str, address: str, replica: str) -> Ways:
    through, straight = await Client.connect(address), await Client.connect(replica)
    text = ModelText(REPOSITORY / "small" / "weights" / "int8")
    generate, infer = router_headers("Generate", address), request_headers(STREAM_INFER, replica)
    seen: Ways = {"direct": [], ON: [], "router, cache off": []}
    numbers = itertools.count(100_000)
    for number in range(-pairs // 10, pairs):
        for name, values in seen.items():
            content = f"My card was declined at the shop on the corner, case {next(numbers)}."
            if name == "direct":
                prompt = text.encode([Message("user", content)])
                ask = infer_request(
                    model, prompt, output_tokens=16, streaming=True, end_id=text.end_id
                )
                took = await _first(straight, infer, ask, lambda one: token_count(one) > 0)
            else:
                request = pb.GenerateRequest(route="cached" if name == ON else "uncached")
                request.prompt.messages.add(role=pb.ROLE_USER, content=content)
                request.sampling.max_output_tokens = 16
                took = await _first(through, generate, request.SerializeToString(), _is_delta)
            if number >= 0:  # the others warm up
                values.append(took)
        if number % 100 == 0:
            report.say(f"first tokens on {model}: {number} of {pairs}")
    for client in (through, straight):
        await client.close()
    return seen


async def _first(
    client: Client, headers: bytes, request: bytes, is_token: Callable[[bytes], bool]
) -> float:
    """Seconds to the first message with a token; the answer is read to its end."""
    await asyncio.sleep(PAUSE_SECONDS)
    first = 0.0

    def take(one: bytes) -> None:
        nonlocal first
        if not first and is_token(one):
            first = time.perf_counter()

    started = time.perf_counter()
    await client.ask(headers, request, take)
    if not first:
        raise BenchError("an answer had no token")
    return first - started


def _is_delta(one: bytes) -> bool:
    return bool(pb.GenerateResponse.FromString(one).HasField("delta"))
