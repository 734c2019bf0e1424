"""What in-flight batching is worth: many requests at a time against the same ones in turn.

One replica of the large model on the real Triton, no router. Every answer has the same number of
tokens, and prompts differ in a number alone, so both sides do the same work; nobody's prompt was
asked before. The rounds alternate between the two.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

from bench import report
from bench.http2 import Client, request_headers
from bench.stack import REPOSITORY, BenchError, Stack
from bench.triton import STREAM_INFER, infer_request, start_replica, token_count
from services.router.engines.tokenizer import ModelText
from services.router.policy.prompts import Message

MODEL = "large"


@dataclass(frozen=True)
class Size:
    """How long all of it takes."""

    requests: int
    output_tokens: int
    levels: tuple[int, ...]
    rounds: int


FULL = Size(requests=64, output_tokens=64, levels=(1, 8, 32), rounds=3)
QUICK = Size(requests=4, output_tokens=8, levels=(1, 4), rounds=1)


@dataclass
class Level:
    """What was seen at one number of requests at a time; a value for each round."""

    tokens_per_second: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)


def run(*, quick: bool) -> None:
    """Measures whole answers and streamed ones."""
    size = QUICK if quick else FULL
    with Stack() as stack:
        report.say(f"starting a replica of {MODEL}")
        _, address = start_replica(stack, MODEL)
        seen = uvloop.run(_measure(size, address))
    for streaming in (False, True):
        _print(size, seen, streaming=streaming)
    top = size.levels[-1]
    for streaming, name in ((False, "whole"), (True, "streamed")):
        figure = f"batching.{name}_at_{top}"
        report.figure(figure, _gain(seen[streaming, top], seen[streaming, 1]), "x")


async def _measure(size: Size, address: str) -> dict[tuple[bool, int], Level]:
    text = ModelText(REPOSITORY / MODEL / "weights" / "int8")
    headers = request_headers(STREAM_INFER, address)
    client = await Client.connect(address)
    seen = {(streaming, at): Level() for streaming in (False, True) for at in size.levels}
    cases = itertools.count(100_000)

    async def batch(count: int, at: int, *, streaming: bool) -> tuple[float, float]:
        prompts = [text.encode([_question(next(cases))]) for _ in range(count)]
        requests = [
            infer_request(MODEL, prompt, output_tokens=size.output_tokens, streaming=streaming)
            for prompt in prompts
        ]
        return await _batch(client, headers, requests, at, size.output_tokens)

    await batch(size.levels[-1], size.levels[-1], streaming=True)  # warms up
    for number in range(size.rounds):
        for (streaming, at), level in seen.items():
            rate, first = await batch(size.requests, at, streaming=streaming)
            level.tokens_per_second.append(rate)
            level.first_token.append(first)
            how = "streamed" if streaming else "whole"
            report.say(f"round {number + 1} of {size.rounds}: {how}, {at} at a time: {rate:,.0f}/s")
    await client.close()
    return seen


def _question(case: int) -> Message:
    return Message("user", f"Why was my card declined at the shop on the corner, case {case}?")


async def _batch(
    client: Client, headers: bytes, requests: Sequence[bytes], at: int, output_tokens: int
) -> tuple[float, float]:
    """Makes the requests, `at` at a time. Returns tokens a second and the median first token."""
    left, firsts, total = list(requests), [], 0
    started = time.perf_counter()

    async def worker() -> None:
        nonlocal total
        while left:
            asked, seen, tokens = time.perf_counter(), 0.0, 0
            request = left.pop()

            def take(message: bytes) -> None:
                nonlocal seen, tokens
                tokens += token_count(message)
                seen = seen or time.perf_counter()

            await client.ask(headers, request, take)
            if tokens != output_tokens:
                raise BenchError(f"an answer has {tokens} tokens instead of {output_tokens}")
            firsts.append(seen - asked)
            total += tokens

    await asyncio.gather(*(worker() for _ in range(at)))
    return total / (time.perf_counter() - started), report.median(firsts)


def _gain(level: Level, alone: Level) -> float:
    """The median over the rounds of how many times faster."""
    pairs = zip(level.tokens_per_second, alone.tokens_per_second, strict=True)
    return report.median([many / one for many, one in pairs])


def _print(size: Size, seen: dict[tuple[bool, int], Level], *, streaming: bool) -> None:
    rows = [
        (
            str(at),
            f"{report.median(seen[streaming, at].tokens_per_second):,.0f}",
            f"{_gain(seen[streaming, at], seen[streaming, 1]):.1f}x",
            f"{report.median(seen[streaming, at].first_token) * 1e3:,.0f}",
        )
        for at in size.levels
    ]
    report.table(
        f"{'Streamed' if streaming else 'Whole'} answers of {size.output_tokens} tokens, one "
        f"replica of {MODEL}, one compute thread",
        ("at a time", "tokens/s", "against one at a time", "first message p50 ms"),
        rows,
    )
