"""A router that is killed while it answers: its ledger says itself what is missing."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.router.ledger.file import FileLedger
from services.router.metrics import Metrics

ANSWERS_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from services.router.ledger.file import FileLedger
from services.router.metrics import Metrics
from tests.making.ledger import request

async def answer():
    ledger = FileLedger(Path(sys.argv[1]), "router", Metrics(CollectorRegistry()))
    async with ledger.writing():
        while True:
            for _ in range(10):
                number = ledger.number()
                if number % 7:  # of the others something still runs for evidence
                    ledger.add(request(str(number), sequence=number))
            print(number, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(answer())
"""


def test_the_gap_of_a_killed_router_is_counted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ANSWERS_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        numbers = [int(process.stdout.readline()) for _ in range(200)]
        process.kill()
        numbers += [int(number) for number in process.stdout.read().split()]
    answered = numbers[-1] + 10  # it was killed before it could print the last ones
    written = _lines(tmp_path)

    async def start_again() -> None:
        async with FileLedger(tmp_path, "router", Metrics(CollectorRegistry())).writing():
            pass

    asyncio.run(start_again())
    (gap,) = (line for line in _lines(tmp_path) if line["kind"] == "gap")
    assert gap["missing"] >= gap["requests"] // 7  # nobody else would have known of these
    assert gap["requests"] <= answered
    assert gap["missing"] + len(written) <= answered
    sequences = {line["sequence"] for line in written}
    assert len(sequences) == len(written)
    assert max(sequences) <= answered
    # All that was answered before the last word is accounted for: written, or missing.
    assert gap["missing"] + len(written) >= gap["requests"]


def _lines(folder: Path) -> list[dict]:
    lines = []
    for file in folder.glob("*.jsonl"):
        whole, _, _ = file.read_text().rpartition("\n")
        lines += [json.loads(line) for line in whole.splitlines()]
    return lines
