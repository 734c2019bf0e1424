"""A record of a lever that a store has damaged is told from one that is whole."""

from typing import Any

import pytest

from services.router.policy.guardrail import Guard
from services.router.policy.lever_record import LeverRecord
from services.router.policy.lever_values import lever_record_of, values_of


def halted() -> LeverRecord:
    """Halted by the guardrail, and by a person too."""
    guard = Guard(tolerance=0.02, run_length=200.0)
    record = LeverRecord()
    for _ in range(20):
        record = record.judged(guard, "v1", 1.0, 1.0, 10.0)
    return record.halt("ann", "why", 10.0, 5.0)


GOOD = values_of(halted())


@pytest.mark.parametrize(
    "damage",
    [
        {"setting": []},
        {"setting": {}},
        {"setting": {**GOOD["setting"], "halted": "yes"}},
        {"setting": {**GOOD["setting"], "author": None}},
        {"setting": {**GOOD["setting"], "since": "today"}},
        {"setting": {**GOOD["setting"], "expires": float("nan")}},
        {"setting": {**GOOD["setting"], "since": 253402300800}},
        {"released": 1e300},
        {"released": None},
        {"watches": None},
        {"watches": GOOD["watches"] * 2},
        {"watches": [{}]},
        {"watches": [{**GOOD["watches"][0], "halted": None}]},
        {"watches": [{**GOOD["watches"][0], "began": True}]},
        {"watches": [{**GOOD["watches"][0], "state": {}}]},
    ],
)
def test_a_damaged_record_is_refused(damage: dict[str, Any]) -> None:
    assert lever_record_of(GOOD)
    with pytest.raises(ValueError, match=r"no (record of a lever|state of a guardrail)"):
        lever_record_of({**GOOD, **damage})


@pytest.mark.parametrize("document", [None, [], "", 3, {}])
def test_what_is_no_record_at_all_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="no record of a lever"):
        lever_record_of(document)
