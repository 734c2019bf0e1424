"""What the router adds to the time to the first token: the first part of `hop`.

The real Triton with the small model, one request at a time, the same client straight to the replica
and through the router, in turns.
"""

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
from services.router.ports import Turn
from services.router.tokenizer import ModelText


def measure(pairs: int) -> None:
    """What the router adds to the time to the first token, one request at a time."""
    with Stack() as stack:
        report.say("starting a replica of small, a cache and a router")
        # Without reuse of prompts nobody's first token is the cheaper for what came before.
        scaler = stack.scaler({"small": pool("small", enable_kv_cache_reuse=False)})
        _, address = stack.router(
            {
                "tiers": {"small": tier("small")},
                "routes": {
                    "cached": route("small", cache=True),
                    "uncached": route("small", cache=False),
                },
            },
            cache=stack.cache(),
            scaler=scaler,
        )
        seen = uvloop.run(_first_tokens(pairs, address, _replica_address(scaler)))
    direct = report.median(seen["direct"])
    report.table(
        "Time to the first token on the real Triton, one request at a time",
        ("way", "p50 ms", "p95 ms", "added p50 ms"),
        [
            (
                name,
                f"{report.median(values) * 1e3:.2f}",
                f"{report.quantile(values, 0.95) * 1e3:.2f}",
                "" if name == "direct" else f"{(report.median(values) - direct) * 1e3:.2f}",
            )
            for name, values in seen.items()
        ],
        note=f"{pairs} requests each way, in turns.",
    )
    added = report.median(seen["router, cache on"]) - direct
    report.figure("hop.added_ttft_p50", added * 1e3, "ms")


def _replica_address(scaler: str) -> str:
    with grpc.insecure_channel(scaler) as channel:
        pools = scaler_pb2_grpc.ScalerServiceStub(channel).ListPools(
            scaler_pb2.ListPoolsRequest(), metadata=METADATA, timeout=5
        )
    return pools.pools[0].replicas[0].address


async def _first_tokens(pairs: int, address: str, replica: str) -> dict[str, list[float]]:
    through, straight = await Client.connect(address), await Client.connect(replica)
    text = ModelText(REPOSITORY / "small" / "weights" / "int8")
    generate, infer = router_headers("Generate", address), request_headers(STREAM_INFER, replica)
    seen: dict[str, list[float]] = {"direct": [], "router, cache on": [], "router, cache off": []}
    numbers = itertools.count(100_000)
    for number in range(-pairs // 10, pairs):
        for name, values in seen.items():
            content = f"My card was declined at the shop on the corner, case {next(numbers)}."
            if name == "direct":
                prompt = await text.encode([Turn("user", content)])
                ask = infer_request(
                    "small", prompt, output_tokens=16, streaming=True, end_id=text.end_id
                )
                took = await _first(straight, infer, ask, lambda one: token_count(one) > 0)
            else:
                request = pb.GenerateRequest(route="cached" if name.endswith("on") else "uncached")
                request.prompt.messages.add(role=pb.ROLE_USER, content=content)
                request.sampling.max_output_tokens = 16
                took = await _first(through, generate, request.SerializeToString(), _is_delta)
            if number >= 0:  # the others warm up
                values.append(took)
        if number % 100 == 0:
            report.say(f"first tokens: {number} of {pairs}")
    for client in (through, straight):
        await client.close()
    return seen


async def _first(
    client: Client, headers: bytes, request: bytes, is_token: Callable[[bytes], bool]
) -> float:
    """Seconds to the first message with a token; the answer is read to its end."""
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
