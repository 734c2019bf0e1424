"""Generators keep the mean they are given, and have the spread they state."""

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import (
    FANO,
    Generator,
    from_rates,
    from_requests,
    multiplied,
    thickened,
)
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.traces import MAX_REQUESTS, Rates, Requests

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
LEVEL = Rates(600.0, np.full(60, 20.0))
HOUR = Requests(
    np.linspace(0.0, 3_600_000.0, 2000),
    np.linspace(500.0, 1500.0, 2000),
    np.random.default_rng(1).integers(50, 350, 2000).astype(float),
)


@pytest.mark.parametrize(("generator", "fano"), [(Generator.POISSON, 1.0), (Generator.STEPS, FANO)])
def test_counts_have_the_mean_and_the_spread_that_is_stated(generator, fano):
    count = from_rates(LEVEL, SERVING, replicas=None, generator=generator, seed=1).count
    assert len(count) == 36_000
    assert count.mean() == pytest.approx(20.0, rel=0.01)
    assert count.var() / count.mean() == pytest.approx(fano, rel=0.05)
    minutes = count.reshape(-1, 60).sum(axis=1)
    assert minutes.var() / minutes.mean() == pytest.approx(fano, rel=0.2)


def test_poisson_runs_straight_between_windows_and_steps_jump():
    ramp = Rates(600.0, np.array([0.0, 600.0]))
    smooth = from_rates(ramp, SERVING, replicas=None, generator=Generator.POISSON, seed=1).count
    jump = from_rates(ramp, SERVING, replicas=None, generator=Generator.STEPS, seed=1).count
    assert smooth[590:610].mean() == pytest.approx(300.0, rel=0.1)
    assert jump[:600].sum() == 0.0
    assert jump[600:].mean() == pytest.approx(600.0, rel=0.05)


def test_rates_are_scaled_to_a_load_in_replicas():
    found = from_rates(LEVEL, SERVING, replicas=3.0, generator=Generator.POISSON, seed=1)
    assert found.work.mean() / SERVING.throughput == pytest.approx(3.0, rel=0.01)
    assert found.prompt.sum() == pytest.approx(found.count.sum() * 1000.0)


def test_the_same_seed_gives_the_same_and_another_does_not():
    one, same, other = (
        from_rates(LEVEL, SERVING, replicas=None, generator=Generator.POISSON, seed=seed).count
        for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_a_thickened_trace_has_the_load_and_keeps_the_drift_of_lengths():
    dense = thickened(HOUR, SERVING, replicas=4.0, seed=1)
    arrivals = from_requests(dense, SERVING)
    assert arrivals.work.sum() / SERVING.throughput / HOUR.seconds == pytest.approx(4.0, rel=0.02)
    early = dense.input_length[dense.timestamp < 600_000.0].mean()
    assert early == pytest.approx(HOUR.input_length[HOUR.timestamp < 600_000.0].mean(), rel=0.01)
    assert (np.diff(dense.timestamp) >= 0.0).all()


def test_single_requests_are_added_up_and_weighed():
    two = Requests(
        np.array([0.0, 1500.0, 1700.0]), np.full(3, 1000.0), np.array([200.0, 200.0, 400.0])
    )
    found = from_requests(two, SERVING)
    assert found.count.tolist() == [1.0, 2.0]
    assert found.output.tolist() == [200.0, 600.0]
    assert found.work[0] == pytest.approx(1.0)
    assert found.work[1] > 2.5


def test_what_would_be_too_much_or_nothing_is_refused():
    with pytest.raises(ValueError, match="too many"):
        multiplied(HOUR, MAX_REQUESTS, 1)
    with pytest.raises(ValueError, match="leave no request"):
        multiplied(HOUR, 1e-9, 1)
    for window in (1e9, 16 * 86_400.0):  # two windows of so many seconds each
        longer = Rates(window, np.ones(2))
        with pytest.raises(ValueError, match="too long"):
            from_rates(longer, SERVING, replicas=None, generator=Generator.POISSON, seed=1)
