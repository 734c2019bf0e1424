from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scaler.harness import Home


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Callable[..., Home]]:
    """Makes the one home of the test; whatever still runs there is ended afterwards."""
    made: list[Home] = []

    def make(**pool: Any) -> Home:
        made.append(Home(tmp_path, **pool))
        return made[-1]

    yield make
    for one in made:
        await one.clean_up()
