"""A fault is told by its types and places, never by its words."""

import pytest

from services.common.faults import MOST_LINKS, MOST_PLACES, fault


def _fails(secret: str) -> None:
    raise KeyError(secret)


def _fails_on(secret: str) -> None:
    try:
        _fails(secret)
    except KeyError as error:
        raise ValueError(f"cannot read {secret}") from error


def _falls(deep: int) -> None:
    if deep:
        _falls(deep - 1)
    raise ValueError("deep")


def test_types_and_places_are_told_with_those_of_causes_and_groups() -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        _fails_on("a secret")
    told = fault(ExceptionGroup("the secret's", [caught.value]))
    assert [line for line in told.splitlines() if not line.startswith(" ")] == [
        "builtins.ExceptionGroup",
        "builtins.ValueError",
        "builtins.KeyError",
    ]
    assert f"{__file__}:9 in _fails" in told
    assert "secret" not in told


def test_it_is_bounded() -> None:
    with pytest.raises(ValueError, match="deep") as caught:
        _falls(100)
    assert fault(caught.value).count("in _falls") == MOST_PLACES
    errors = [ValueError(f"{n}") for n in range(100)]
    for one, cause in zip(errors, [*errors[1:], errors[0]], strict=True):
        one.__cause__ = cause  # in a ring
    assert fault(errors[0]).splitlines() == ["builtins.ValueError"] * MOST_LINKS
