"""A cache that cannot start leaves nothing open."""

import asyncio

import pytest

from services.cache.__main__ import serve
from services.cache.config import CacheSettings
from services.common.config import ConfigError
from tests.making.opened import closes, opened, taken_port


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    before = opened()
    with taken_port() as port:
        settings = CacheSettings(
            listen=f"127.0.0.1:{port}",
            metrics_listen="127.0.0.1:0",
            otlp_endpoint="http://127.0.0.1:1",
            store="redis://127.0.0.1:1",
        )
        with pytest.raises(ConfigError, match="listen address"):
            await serve(settings, asyncio.Event())
    await closes(before)
