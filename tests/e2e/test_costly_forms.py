"""Forms that would keep an engine busy for minutes, asked of the whole stack beside other work."""

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest

from pennyweight import BadRequest, Client, PennyweightError
from tests.e2e.running_stack import RunningStack

QUESTION = "My card has not arrived yet, what can I do?"
EXPRESSIONS = ("(.*a.{60}){3}", ".*a.{12}", ".*a.{25}")
LATE = r"(\w+\s?){1,200}"
"""Its grammar is small, but each token of its answers takes longer than the one before."""
PATTERNS = tuple(json.dumps({"type": "string", "pattern": one}) for one in EXPRESSIONS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    running = RunningStack(
        tmp_path_factory.mktemp("stack"),
        sizes={"small-cpu": 1, "large-cpu": 1},
        environment={},
    )
    try:
        for name in ("cache", "scaler", "router"):
            running.start(name)
        yield running
    finally:
        running.close()


async def until_up(client: Client) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(PennyweightError):
                routes = (await client.list_routes()).routes
                if all(tier.ready_replicas for route in routes for tier in route.ladder):
                    return
            await asyncio.sleep(0.1)


async def test_everybody_else_is_answered_beside_costly_forms(stack: RunningStack) -> None:
    async with stack.client() as client:
        await until_up(client)
        route = (await client.list_routes()).routes[0].name

        async def ask(**options: object) -> str:
            answer = await client.complete(
                route,
                QUESTION,
                cache_use="bypass",
                max_output_tokens=16,
                timeout_seconds=60,
                **options,
            )
            return answer.text

        async def attack(**form: str) -> None:
            """Asks and hangs up after a while."""
            with contextlib.suppress(PennyweightError, TimeoutError):
                async with asyncio.timeout(2):
                    await ask(**form)

        attacks = [
            asyncio.create_task(attack(**form))
            for form in (
                *({"regex": one} for one in (LATE, *EXPRESSIONS)),
                *({"json_schema": one} for one in PATTERNS),
            )
        ]
        for _ in range(7):
            answers = await asyncio.gather(*(ask(priority="critical") for _ in range(7)))
            assert len(answers) == 7
        await asyncio.gather(*attacks)
        assert await ask(regex=".*a.{12}")
        assert await ask(json_schema=PATTERNS[1])
        with pytest.raises(BadRequest, match="too many ways"):
            await ask(regex=LATE)
