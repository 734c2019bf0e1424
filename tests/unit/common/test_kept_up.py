"""What goes on for ever begins anew where it fails."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.common.kept_up import AGAIN_SECONDS, kept_up

FOREVER = 3600.0


@pytest.mark.parametrize("failure", [RuntimeError("odd"), asyncio.CancelledError()])
async def test_what_runs_for_ever_begins_anew_where_it_fails(failure: BaseException) -> None:
    pauses: list[float] = []
    again = asyncio.Event()

    async def work() -> None:
        if not pauses:
            raise failure
        again.set()
        await asyncio.sleep(FOREVER)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            link = tasks.create_task(kept_up("looks", work, pause))
            await again.wait()
            link.cancel()
    assert link.cancelled()
    assert pauses == [AGAIN_SECONDS]
    assert [(line["log_level"], line["work"]) for line in logs] == [("error", "looks")]
