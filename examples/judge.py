# ruff: noqa: INP001 -- a script
"""A judge of answers that asks a language model which of two is better.

    python examples/judge.py --listen 127.0.0.1:50061 --router 127.0.0.1:50051 --route judge

A route whose judge is of kind `model` with this address is judged by it. `--route` is another route
of the same router, with a capable model as its fixed tier and at least 8 output tokens. The top
tier's answer is the yardstick and gets 1. Models favour an answer by its place, so each pair is put
in both orders: the other answer gets 1 if it is preferred or as good twice, 0.5 if once, else 0.
"""

import argparse
import asyncio
import logging
from functools import partial
from typing import Any

import grpc

import pennyweight as pw
from pennyweight.judge.v1 import judge_pb2, judge_pb2_grpc

ASK = """\
Here is a conversation and two answers to its last message. Which one is better? Say first, second,
or same if they are equally good. Judge what is said, not how long it is.

{conversation}

[first] {first}

[second] {second}"""


class Judge(judge_pb2_grpc.JudgeServiceServicer):
    """Compares each answer with the top tier's."""

    def __init__(self, client: pw.Client, route: str) -> None:
        self._ask = partial(client.complete, route, regex="first|second|same")

    async def Judge(self, request: judge_pb2.JudgeRequest, context: Any) -> judge_pb2.JudgeResponse:  # noqa: N802
        """See judge.proto."""
        told = "\n\n".join(f"[{turn.role}] {turn.content}" for turn in request.turns)
        *others, best = request.answers

        async def better(first: str, second: str) -> str:
            prompt = ASK.format(conversation=told, first=first, second=second)
            return (await self._ask(prompt, timeout_seconds=context.time_remaining() or 30.0)).text

        async def quality(answer: str) -> float:
            if answer == best:
                return 1.0
            one, two = await asyncio.gather(better(answer, best), better(best, answer))
            return ((one != "second") + (two != "first")) / 2

        try:
            qualities = await asyncio.gather(*map(quality, others))
        except pw.PennyweightError as error:  # the request stays unjudged
            await context.abort(error.code, error.message)
        return judge_pb2.JudgeResponse(qualities=[*qualities, 1.0])


async def main() -> None:
    """Serves until it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = argparse.ArgumentParser(description="A judge of answers.")
    options.add_argument("--listen", default="127.0.0.1:50061")
    options.add_argument("--router", default="127.0.0.1:50051")
    options.add_argument("--route", required=True)
    told = options.parse_args()
    server = grpc.aio.server(maximum_concurrent_rpcs=16)
    async with pw.Client(told.router) as client:
        judge_pb2_grpc.add_JudgeServiceServicer_to_server(Judge(client, told.route), server)
        port = server.add_insecure_port(told.listen)
        await server.start()
        logging.getLogger("judge").info("judging at port %d", port)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
