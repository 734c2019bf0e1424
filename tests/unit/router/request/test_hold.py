"""Checks of what is held back, wherever they run."""

import threading

import pytest

from services.router.policy.forms import Validator, json_schema
from services.router.request.hold import has_form


@pytest.mark.parametrize(
    ("characters", "cost", "aside"), [(100, 1, False), (100, 5000, True), (300_000, 1, True)]
)
async def test_a_check_that_takes_long_runs_beside_the_requests(
    characters: int, cost: int, *, aside: bool
) -> None:
    threads = []

    def holds(_: str) -> bool:
        threads.append(threading.get_ident())
        return True

    assert await has_form("x" * characters, (Validator(holds, cost),))
    assert (threads[0] != threading.get_ident()) is aside


def test_a_schema_costs_by_its_size() -> None:
    assert json_schema('{"type": "number"}').cost == len('{"type": "number"}')
