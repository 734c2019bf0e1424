"""What holds for all tests: those below tests/e2e run the real Triton and bear the marker.

With ``-n 2 --dist loadgroup`` tests of one file share a process, and so do all that run Triton: one
local stack at a time is what two cores bear.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile(
    "untimed",
    parent=settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")

# What tests start is piped, and no screen is to say how wide it is.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path
        if path.is_relative_to(E2E):
            item.add_marker(pytest.mark.e2e)
            path = E2E
        item.add_marker(pytest.mark.xdist_group(str(path.relative_to(TESTS))))
