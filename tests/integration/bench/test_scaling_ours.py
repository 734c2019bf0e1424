"""The core's forecast is measured against none, with the core that is served."""

import numpy as np

from bench.scaling_ours import forecast_of
from services.scaler.policy.sizing.settings import Capacity, Work
from services.scaler.simulator.arrivals import DAY, Arrivals
from services.scaler.simulator.fluid import Pool
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.silicon import Serving

STEP = 15.0


def test_days_that_are_alike_are_forecast_better_than_by_nothing() -> None:
    serving = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
    at = np.arange(0.0, 1.5 * DAY, STEP)
    waves = 1.0 + 0.8 * np.sin(2 * np.pi * at / (DAY / 8))
    came = 3.0 * serving.throughput * waves * STEP
    arrivals = Arrivals(STEP, came, came * 1000.0, came * 200.0, came)
    cell = Cell("waves", arrivals, Pool(serving, 2.0, (180.0,), 4, DAY))
    name, off, season, error, plain = forecast_of(cell, Work(capacity=serving.capacity))
    assert name == "waves"
    assert off != season, "where it is right it is used"
    assert float(error) < float(plain) / 2
