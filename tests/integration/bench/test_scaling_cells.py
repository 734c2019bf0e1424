"""Cells of shorter steps are those of whole seconds, but for what is drawn."""

import numpy as np
import pytest

from bench.scaling_cells import Data, days, load_of
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import DAY
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.traces import Rates, Requests

WINDOW = 600.0
WINDOWS = round(14 * DAY / WINDOW)


def test_two_weeks_are_not_too_long_for_short_steps() -> None:
    serving = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
    at = np.arange(WINDOWS) / WINDOWS
    none = np.zeros(0)
    # The load grows over the two weeks, so that the days served have more than the mean.
    data = Data((), Requests(none, none, none), Rates(WINDOW, 5.0 + 10.0 * at), serving)
    fine = days(data, "score", serving, step=0.25, objective=0.5, scored=0.25)
    plain = days(data, "score", serving, scored=0.25)
    assert [cell.name for cell in fine] == [cell.name for cell in plain]
    assert [cell.arrivals.seconds for cell in fine] == [1.25 * DAY] * len(fine)
    for short, whole in zip(fine, plain, strict=True):
        assert load_of(short) == pytest.approx(load_of(whole), rel=0.01)
        assert load_of(short) > 2.0
