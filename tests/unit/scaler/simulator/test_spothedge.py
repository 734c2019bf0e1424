"""Spot and on-demand mixed: what is lost is replaced, and what is spot is cheaper."""

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Pool
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.spothedge import Market, Mix, availability, hedged

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
SLOT = 15.0
SECONDS = 3600
WORK = np.full(SECONDS, 3.2 * SERVING.throughput)
LEVEL = Arrivals(1.0, WORK, WORK * SERVING.prompt, WORK * SERVING.output, WORK)
TARGETS = [4] * round(SECONDS / SLOT)
POOL = Pool(SERVING, 2.0, (60.0,), 4, warm=600.0)
MARKET = Market(zones=3, price=0.35)
MIX = Mix()
SLOTS = round(SECONDS / SLOT)


def served(ups=None, market=MARKET, mix=MIX):
    return hedged(POOL, LEVEL, TARGETS, slot=SLOT, ups=ups, market=market, mix=mix)


def ups() -> np.ndarray:
    return np.ones((SLOTS, 3), bool)


def test_on_demand_alone_costs_its_target():
    found = served()
    assert found.attainment == 1.0
    assert found.cost == pytest.approx(4 * (SECONDS - 600) / 3600.0)


def test_spot_that_is_never_lost_costs_its_price():
    found = served(ups(), mix=Mix(over=1))
    assert found.attainment == 1.0
    assert found.lost == 0
    assert found.cost == pytest.approx(0.35 * 5 * (SECONDS - 600) / 3600.0)


def test_without_any_spot_on_demand_holds_the_target():
    found = served(np.zeros((SLOTS, 3), bool))
    assert found.attainment == 1.0
    assert found.cost == pytest.approx(4 * (SECONDS - 600) / 3600.0)


def test_half_on_spot_keeps_the_other_half_on_demand():
    found = served(ups(), mix=Mix(share=0.5, over=0))
    assert found.cost == pytest.approx((2 + 0.35 * 2) * (SECONDS - 600) / 3600.0)


def test_a_lost_zone_costs_answers_and_a_notice_saves_them():
    lost = ups()
    lost[120:, 0] = False
    without = served(lost, mix=Mix(over=0))
    warned = served(lost, Market(notice_seconds=120.0), Mix(over=0))
    assert without.lost > 0
    assert without.attainment < 0.995
    assert warned.attainment > without.attainment
    assert warned.attainment > 0.999


def test_spare_replicas_make_a_loss_milder():
    lost = ups()
    lost[120:, 0] = False
    few, many = (served(lost, mix=Mix(over=over)) for over in (0, 3))
    assert many.attainment > few.attainment
    assert many.cost > few.cost


def test_some_stay_on_demand_whatever_spot_has():
    found = served(ups(), mix=Mix(over=0, least=2))
    assert found.cost == pytest.approx((0.35 * 4 + 2) * (SECONDS - 600) / 3600.0)


def test_zones_are_up_for_the_share_that_is_stated():
    found = availability(Market(zones=8), 60 * 86_400.0, 60.0, seed=1)
    assert found.mean() == pytest.approx(8 / 9, abs=0.02)
    assert (found == availability(Market(zones=8), 60 * 86_400.0, 60.0, seed=1)).all()
    ends = np.flatnonzero(np.diff(found[:, 0].astype(int)) == -1)
    assert np.diff(ends).mean() * 60.0 == pytest.approx(9 * 3600.0, rel=0.2)
