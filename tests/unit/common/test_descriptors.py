"""Descriptors: connections never take all of them."""

import resource

import pytest

from services.common import descriptors


@pytest.mark.parametrize(
    ("soft", "expected"),
    [(20_000, 4096), (1024, 512), (1, 1), (resource.RLIM_INFINITY, 4096)],
)
def test_half_of_the_descriptors_is_kept(
    soft: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, soft))
    assert descriptors.most_connections(4096) == expected


def test_the_limit_is_raised_to_the_most_that_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
