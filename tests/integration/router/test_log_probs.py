"""Whether an engine tells log-probabilities is found out by asking it, once, before it matters."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.router.world import HELLO, World, asking, hello, tokens
from tests.integration.scripted_triton import Received, Say, Script, answer

BETTER = "Better."


@pytest.fixture
async def probing(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path).running(cache=False, probe_engines=True) as world:
        yield world


def model(text: str, *, probed: float, sure: float, filled: float | None = None) -> Script:
    """Says `text`; `probed` is the log-prob of what it says to a probe, `sure` of anything else."""

    def script(received: Received) -> Script:
        told = probed if is_probe(received) else sure
        return answer(tokens(text), sure=told if filled is None else filled)

    return script  # type: ignore[return-value]


def is_probe(received: Received) -> bool:
    return received.id.startswith("probe")


async def known(world: World, tier: str, value: int) -> None:
    async def look() -> str:
        lines = (await world.metrics()).splitlines()
        start = f'pennyweight_router_engine_log_probs{{tier="{tier}"}} '
        return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")

    await world.eventually(look, f"{value:.1f}")


async def test_zero_is_certain_where_the_engine_tells_log_probs(probing: World) -> None:
    small = await probing.add("s", "small", script=model(HELLO, probed=-2.0, sure=0.0))
    await probing.add("t", "top", script=hello())
    await known(probing, "small", 1)
    caller = await probing.caller()
    told = await caller.ask(asking("laddered"))
    assert (told.text, told.decision.reason) == (HELLO, pb.REASON_CALIBRATED)
    assert told.decision.candidates[0].certainty == 0.0
    assert len([one for one in small.received if is_probe(one)]) == 1
    assert await probing.metric("probe_tokens_total", tier="small") > 0


async def test_zeros_of_an_engine_that_fills_them_in_are_unknown(probing: World) -> None:
    await probing.add("s", "small", script=model(HELLO, probed=0.0, sure=0.0))
    await probing.add("t", "top", script=answer(tokens(BETTER)))
    await known(probing, "small", 0)
    told = await (await probing.caller()).ask(asking("laddered"))
    assert told.text == BETTER
    assert not told.decision.candidates[0].HasField("certainty")


async def test_a_probe_too_short_to_tell_is_made_again(probing: World) -> None:
    said = iter([[Say(tokens(HELLO)[:1], final=True, sure=0.0)]])

    def script(received: Received) -> Script:
        return next(said, None) or answer(tokens(), sure=-1.0)

    small = await probing.add("s", "small", script=script)
    await known(probing, "small", 1)
    assert len(small.received) == 2


async def test_tiers_whose_certainty_nobody_asks_for_are_left_alone(probing: World) -> None:
    quick = await probing.add("q", "quick")
    await probing.add("s", "small")
    await known(probing, "small", 1)
    assert quick.received == []
