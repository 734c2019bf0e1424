"""A router that cannot start leaves nothing open and nothing locked."""

import asyncio
from pathlib import Path

import pytest

from services.common.config import ConfigError
from services.common.files import FolderLock
from services.router.__main__ import serve
from services.router.config import RouterSettings
from tests.integration.router.world import write_settings
from tests.making.opened import closes, opened, taken_port


async def test_an_address_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    before = opened()
    with taken_port() as port:
        changes = {
            "listen": f"127.0.0.1:{port}",
            "metrics_listen": "127.0.0.1:0",
            "otlp_endpoint": "http://127.0.0.1:1",
        }
        settings = RouterSettings(**write_settings(tmp_path) | changes)
        with pytest.raises(ConfigError, match="listen address"):
            await serve(settings, asyncio.Event())
    await closes(before)
    FolderLock(settings.state_folder, "router").close()
