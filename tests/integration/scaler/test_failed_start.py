"""A scaler that cannot start leaves nothing open."""

import asyncio
from collections.abc import Callable

import pytest

from services.common.config import ConfigError
from services.scaler.__main__ import serve
from services.scaler.config import ScalerSettings
from tests.integration.scaler.harness import Home
from tests.making.opened import closes, opened, taken_port


async def test_an_address_that_is_taken_leaves_nothing_open(home: Callable[..., Home]) -> None:
    place, before = home(), opened()
    with taken_port() as port:
        settings = ScalerSettings(
            listen=f"127.0.0.1:{port}",
            metrics_listen="127.0.0.1:0",
            otlp_endpoint="http://127.0.0.1:1",
            scaling_file=place.scaling,
            state_folder=place.state,
        )
        with pytest.raises(ConfigError, match="listen address"):
            await serve(settings, {}, asyncio.Event())
    await closes(before)
