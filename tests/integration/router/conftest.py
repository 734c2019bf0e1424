import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest
import uvloop
from prometheus_client.exposition import ThreadingWSGIServer

from services.router.clients import scaler
from services.router.ledger import file as ledger
from tests.integration.router.world import Caller, World


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the services run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings of the router that a test changes by overriding this."""
    return {}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaler, "REPORT_SECONDS", 0.03)
    monkeypatch.setattr(ledger, "COMMIT_SECONDS", 0.03)

    def serve_forever(server: ThreadingWSGIServer) -> None:
        BaseServer.serve_forever(server, poll_interval=0.01)  # not half a second

    monkeypatch.setattr(ThreadingWSGIServer, "serve_forever", serve_forever)


@pytest.fixture
async def world(tmp_path: Path, changes: dict[str, Any]) -> AsyncIterator[World]:
    """A router with a scaler and without a cache."""
    async with World(tmp_path).running(cache=False, **changes) as one:
        yield one


@pytest.fixture
async def cached_world(tmp_path: Path, changes: dict[str, Any]) -> AsyncIterator[World]:
    """A router with a scaler and a cache."""
    async with World(tmp_path).running(cache=True, **changes) as one:
        yield one


@pytest.fixture
async def caller(world: World) -> Caller:
    return await world.caller()
