"""Policies that router and scaler refuse are on the screen of a running stack."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pennyweight.answers import PolicyProblem, PolicyRefusal
from services.local.screen import status_line
from services.local.status import Observer

SINCE = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)


async def test_each_refused_file_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        PolicyRefusal(SINCE, "routes.yaml", (PolicyProblem("must be at least 1", 3, "a", "0"),)),
        PolicyRefusal(SINCE, "scaling.yaml", (PolicyProblem("is missing", 7, "pools.b.tier"),)),
    ]

    async def nothing(*_: Any) -> Any:
        return []

    async def refusals() -> list[PolicyRefusal]:
        return found

    async def silent() -> list[str]:
        return ["the scaler does not answer"] if found else []

    async def troubles() -> list[str]:
        return ["tier large: no replica serves it"] if found else []

    stack: Any = SimpleNamespace(
        plan=SimpleNamespace(ledger=tmp_path, state=tmp_path),
        services=SimpleNamespace(pools=nothing, refusals=refusals, troubles=troubles),
        silent=silent,
    )
    observer = Observer(stack)
    monkeypatch.setattr(observer, "_cached_answers", nothing)
    line = status_line(await observer.look())
    assert line.endswith(
        "the scaler does not answer · "
        "routes.yaml is refused, what was in force stays: line 3: a: must be at least 1, got 0 · "
        "scaling.yaml is refused, what was in force stays: line 7: pools.b.tier: is missing · "
        "tier large: no replica serves it"
    )
    found.clear()
    line = status_line(await observer.look())
    assert "refused" not in line
    assert "does not answer" not in line
    assert "no replica serves it" not in line
