"""Which answers, tried at random, are too slow for a guide to run."""

import pytest

from engines.cpu.process.trial import slow_answer


@pytest.mark.parametrize(
    ("took", "why"),
    [
        ([], ""),
        ([0.001] * 128, ""),
        ([0.18, *[0.001] * 127], ""),
        ([0.21], "a token of its answer takes 210 ms of processor time"),
        ([0.04] * 97, "its tokens take 40 ms of processor time each, of at most 30"),
    ],
)
def test_the_slowest_token_and_the_mean_of_all_are_bounded(took: list[float], why: str) -> None:
    assert slow_answer(took, 1.0) == why


def test_growth_counts_though_no_token_is_slow() -> None:
    """Broken off at the time that 128 tokens may take, before the last ones were made."""
    grows = [0.002 * number for number in range(64)]
    assert sum(grows) > 0.03 * 128
    assert slow_answer(grows, 1.0)
    assert not slow_answer(grows, 2.0), "a larger vocabulary has more time"
