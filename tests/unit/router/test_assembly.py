"""What the process runs beside requests: the failure of one part ends no other."""

import asyncio
from dataclasses import fields
from typing import Any

from structlog.testing import capture_logs

from services.router.assembly import Parts


class Failing:
    """A part whose work fails at once."""

    async def run(self) -> None:
        raise RuntimeError("odd")

    watch = report = run


async def test_no_part_that_fails_ends_the_process() -> None:
    parts: dict[str, Any] = {field.name: Failing() for field in fields(Parts)}
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            links = [tasks.create_task(work) for work in Parts(**parts).links()]
            while len(logs) < len(links):
                await asyncio.sleep(0)
            assert not any(link.done() for link in links)
            for link in links:
                link.cancel()
    assert len({line["work"] for line in logs}) == len(links) == 9
