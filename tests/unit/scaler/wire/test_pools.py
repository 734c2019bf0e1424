"""Lists of many pools: what a crowd that asks for them costs, and who is told what."""

import asyncio

from services.common.caller_turns import CallerTurns
from services.common.credentials import Identity, Role
from services.scaler.config import Pool
from services.scaler.fleet.fleet import PoolView
from services.scaler.load.loads import Loads
from services.scaler.wire.pools import HIDDEN_TROUBLE, PoolCalls
from tests.making.replicas import pool

LOUD, OPERATOR = Identity("loud", Role.CALLER), Identity("ops", Role.OPERATOR)


class Many:
    """A fleet of many pools, which counts how often it is looked at."""

    def __init__(self, pools: int) -> None:
        self.looked = 0
        self._settings: Pool = pool()
        self._pools = pools

    def pools(self) -> list[PoolView]:
        self.looked += 1
        return [
            PoolView(f"p{index:03}", self._settings, 1, (), 1, "port 80 is taken", None)
            for index in range(self._pools)
        ]


class Watch:
    refusal = None


async def test_64_lists_of_one_tenant_cost_two_and_delay_nobody_by_more() -> None:
    fleet, turns = Many(250), CallerTurns()
    calls = PoolCalls(fleet, Watch(), Loads(), turns)
    crowd = [asyncio.create_task(calls.list_pools(LOUD))]
    while not fleet.looked:
        await asyncio.sleep(0)
    crowd += [asyncio.create_task(calls.list_pools(LOUD)) for _ in range(63)]
    await asyncio.sleep(0)
    await turns.made("quiet", range(100), str)  # long work of somebody else
    looked = fleet.looked
    answers = await asyncio.gather(*crowd)
    assert looked <= 2
    assert fleet.looked == 2
    assert {len(answer.pools) for answer in answers} == {250}


async def test_who_is_no_operator_is_told_no_reasons_whoever_asks_beside() -> None:
    calls = PoolCalls(Many(40), Watch(), Loads(), CallerTurns())
    told, hidden = await asyncio.gather(calls.list_pools(OPERATOR), calls.list_pools(LOUD))
    assert {one.trouble for one in told.pools} == {"port 80 is taken"}
    assert {one.trouble for one in hidden.pools} == {HIDDEN_TROUBLE}
