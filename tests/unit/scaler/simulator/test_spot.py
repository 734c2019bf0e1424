"""Spot and on-demand under the very core: what is lost is replaced, and what is spot is cheaper."""

from dataclasses import replace

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity, Scale, Spot, Work
from services.scaler.policy.sizing.spot import mixed
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.core import TICK_SECONDS
from services.scaler.simulator.fluid import Pool
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.spot import SPOT, Market, availability, serve_on_spot

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
SECONDS, WARM = 6 * 3600, 5 * 3600
"""After five hours the start counts for so little that the safety net is gone."""
TICKS = round(SECONDS / TICK_SECONDS)
LOSS = round(5.5 * 3600 / TICK_SECONDS)
WORK = np.full(SECONDS, 3.2 * SERVING.throughput)
LEVEL = Arrivals(1.0, WORK, WORK * SERVING.prompt, WORK * SERVING.output, WORK)
POOL = Pool(SERVING, 2.0, (60.0,), 4, warm=WARM)
MARKET = Market(zones=3, price=0.35)
# Four replicas, whatever the headroom has learned.
SCALE = Scale(min=4, max=4, work=Work(capacity=SERVING.capacity))


def served(ups=None, market=MARKET, scale=SCALE, **spot):
    if ups is not None:
        scale = replace(scale, spot=Spot(pool=SPOT, **spot))
    return serve_on_spot(POOL, LEVEL, scale, ups=ups, market=market)


def ups() -> np.ndarray:
    return np.ones((TICKS, 3), bool)


def hours(replicas: float) -> float:
    return replicas * (SECONDS - WARM) / 3600.0


def test_on_demand_alone_costs_what_the_core_wants():
    found = served()
    assert found.attainment == 1.0
    assert found.cost == pytest.approx(hours(4))


def test_spot_that_is_never_lost_costs_its_price():
    found = served(ups(), over_provision=1)
    assert found.attainment == 1.0
    assert found.lost == 0
    assert found.cost == pytest.approx(hours(0.35 * 5))


def test_without_any_spot_on_demand_holds_it_all():
    found = served(np.zeros((TICKS, 3), bool))
    assert found.attainment == 1.0
    assert found.cost == pytest.approx(hours(4))


def test_half_on_spot_keeps_the_other_half_on_demand():
    found = served(ups(), share=0.5, over_provision=0)
    assert found.cost == pytest.approx(hours(2 + 0.35 * 2))


def test_some_stay_on_demand_whatever_spot_has():
    found = served(ups(), over_provision=0, min_on_demand=2)
    assert found.cost == pytest.approx(hours(2 + 0.35 * 2))


def test_it_is_the_core_that_makes_up_for_what_was_lost(monkeypatch):
    asked = []

    def noted(*args, **kwargs):
        asked.append((kwargs["ready"], mixed(*args, **kwargs)[0].on_demand))
        return mixed(*args, **kwargs)

    monkeypatch.setattr("services.scaler.policy.sizing.asking.mixed", noted)
    lost = ups()
    lost[LOSS:, 0] = False
    served(lost, over_provision=0)
    # Of four on spot the emptiest zones had one or two each; none of them was made up before.
    assert asked[LOSS - 1] == (4, 0)
    ready, on_demand = asked[LOSS]
    assert ready < 4
    assert on_demand == 4 - ready


def test_a_lost_zone_costs_answers_and_a_notice_saves_them():
    lost = ups()
    lost[LOSS:, 0] = False
    without = served(lost, over_provision=0)
    warned = served(lost, Market(notice_seconds=120.0), over_provision=0)
    assert without.lost > 0
    assert without.attainment < 0.995
    assert warned.attainment > without.attainment
    assert warned.attainment > 0.999


def test_spare_replicas_make_a_loss_milder():
    lost = ups()
    lost[LOSS:, 0] = False
    few, many = (served(lost, over_provision=over) for over in (0, 3))
    assert many.attainment > few.attainment


def test_zones_are_up_for_the_share_that_is_stated():
    found = availability(Market(zones=8), 60 * 86_400.0, 1, tick=60.0)
    assert found.mean() == pytest.approx(8 / 9, abs=0.02)
    assert (found == availability(Market(zones=8), 60 * 86_400.0, 1, tick=60.0)).all()
    ends = np.flatnonzero(np.diff(found[:, 0].astype(int)) == -1)
    assert np.diff(ends).mean() * 60.0 == pytest.approx(9 * 3600.0, rel=0.2)
