"""A router that says what a test wants, for the command and for what drives the local stack."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.client.scripted_router import ScriptedRouter, Stage, serve


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    router = ScriptedRouter()
    server = serve(router, "127.0.0.1:0")
    port = await server.start()
    yield Stage(f"127.0.0.1:{port}", router, server)
    await server.grpc.stop(0)
