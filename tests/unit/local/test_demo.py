"""What the demo shows on a screen of 80 columns and on a wide one."""

import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from rich.console import Console

from pennyweight import (
    Client,
    Cost,
    Decision,
    Delta,
    Event,
    Finished,
    Started,
    Timings,
    Unavailable,
    Usage,
)
from services.local import demo, own_records
from services.local.own_records import OwnRecords


def finished(reason: str, paid: int) -> list[Event]:
    decision = Decision(
        *("support-chat", "v1", "small", "support-small", "int8", "small-0", reason),
        *(f"{reason} [/INST] as it stands.", "not_asked", False),
    )
    timings = Timings(engine_seconds=0.0123)
    return [
        Started("h", decision),
        Delta("Declined [/INST] card: check your balance.", 9),
        Finished("h", decision, "stop", Usage(12, 34), Cost(paid, 100), timings),
    ]


class Answers:
    """A client whose answers were escalated, but for one that failed."""

    def __init__(self) -> None:
        self.asked = 0

    async def generate(self, route: str, question: str, **_: Any) -> AsyncIterator[Event]:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("[/x] no replica", grpc.StatusCode.UNAVAILABLE)
        for event in finished("uncalibrated" if self.asked == 2 else "escalated", 113):
            yield event


async def shown(width: int, monkeypatch: pytest.MonkeyPatch, ledger: Path) -> str:
    monkeypatch.setattr(own_records, "LEDGER_SECONDS", 0.0)
    out = io.StringIO()
    console, records = Console(file=out, width=width, markup=False), OwnRecords(ledger)
    assert not await demo.run_demo(cast("Client", Answers()), console, records)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 160])
async def test_what_was_saved_is_on_every_screen(
    width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = await shown(width, monkeypatch, tmp_path)
    lines = text.splitlines()
    titles = lines[0].split()
    assert titles[:3] == ["question", "answer", "tier"]
    assert titles[-2:] == ["paid", "saved"]
    assert ("tokens" in titles) is (width >= 120)
    assert max(map(len, lines)) <= width
    (row,) = (line for line in lines if "uncalibrated" in line and "└" not in line)
    assert re.search(r"113 µ\$ +-13%$", row.rstrip())
    assert "[/x] no replica" in re.sub(r"\s+", " ", text)
