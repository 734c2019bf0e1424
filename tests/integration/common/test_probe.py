"""The probe of containers tells whether a server serves."""

import asyncio
import sys

from tests.integration.common.serving import serving


async def probe(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.common.probe",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_serving_server_is_well() -> None:
    async with serving() as running:
        assert await probe(f"127.0.0.1:{running.port}") == (0, "")


async def test_a_server_that_is_away_or_stops_serving_is_said() -> None:
    async with serving() as running:
        await running.server.set_serving(serving=False)
        code, said = await probe(f"127.0.0.1:{running.port}")
        assert (code, said) == (1, f"127.0.0.1:{running.port}: NOT_SERVING\n")
    code, said = await probe(f"127.0.0.1:{running.port}")
    assert code == 1
    assert "UNAVAILABLE" in said


async def test_a_wrong_use_is_said() -> None:
    code, said = await probe()
    assert code == 1
    assert said.startswith("usage: ")
