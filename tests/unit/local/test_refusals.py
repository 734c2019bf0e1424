"""Policies that router and scaler refuse are on the screen of a running stack."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pennyweight.answers import PolicyProblem, PolicyRefusal
from services.common.config import ConfigError
from services.local.screen import status_line
from services.local.status import Observer
from services.scaler.config import Scaling

SINCE = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)


def observer_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[PolicyRefusal]
) -> Observer:
    """Of a stack that refuses these files; while it does, all else ails too."""

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
    return observer


async def test_each_refused_file_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        PolicyRefusal(SINCE, "routes.yaml", (PolicyProblem("must be at least 1", 3, "a", "0"),)),
        PolicyRefusal(SINCE, "scaling.yaml", (PolicyProblem("is missing", 7, "pools.b.tier"),)),
    ]
    observer = observer_of(tmp_path, monkeypatch, found)
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


async def test_a_slip_in_a_key_is_told_before_the_key_that_it_leaves_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scaling.yaml"
    pool = "tier: small, model: m, precision: int8, repository: r, scale: {maxx: 3}"
    file.write_text(f"pools: {{p: {{{pool}}}}}")
    with pytest.raises(ConfigError) as refused:
        Scaling.load(file)
    problems = [PolicyProblem(one.rule, one.line, one.key) for one in refused.value.details]
    assert problems[0].rule == "is missing"
    found = [PolicyRefusal(SINCE, "scaling.yaml", tuple(problems))]
    line = status_line(await observer_of(tmp_path, monkeypatch, found).look())
    assert "stays: line 1: pools.p.scale.maxx: no such key; did you mean max?" in line
