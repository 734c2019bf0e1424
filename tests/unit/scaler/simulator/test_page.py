"""The page stands by itself, says what runs came to, and trusts no name."""

import re

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Pool, run
from services.scaler.simulator.page import INK, page
from services.scaler.simulator.silicon import Serving

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
WORK = np.full(3600, 2.5 * SERVING.throughput)
HOUR = Arrivals(1.0, WORK, WORK * SERVING.prompt, WORK * SERVING.output, WORK)


class Keep:
    tick = 15.0

    def __init__(self, count: int) -> None:
        self.count = count

    def size(self, _):
        return self.count


@pytest.fixture(scope="module")
def written() -> str:
    courses = {
        name: run(Pool(SERVING, 2.0, (60.0,), size, usd_per_hour=2.0), HOUR, Keep(size))
        for name, size in (("<b>three</b>", 3), ("two", 2))
    }
    return page("Trial & error", "An hour.", courses)


def test_it_needs_nothing_from_elsewhere(written):
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)[^"')\s>]+""", written)
    assert outside == []
    assert "<script" not in written


def test_names_are_text(written):
    assert "<b>three</b>" not in written
    assert "&lt;b&gt;three&lt;/b&gt;" in written
    assert "<title>Trial &amp; error</title>" in written


def test_figures_of_each_run_are_there_and_a_missed_aim_is_marked(written):
    assert "<td>100.00 %</td>" in written
    assert "<td>3.0</td>" in written
    assert "$6.00" in written
    assert len(re.findall(r"<td>[0-9.]+ % ⚠</td>", written)) == 1


def test_pictures_take_the_colours_of_the_screen(written):
    assert "prefers-color-scheme: dark" in written
    assert written.count("<svg") == 1
    assert "currentColor" in written
    assert INK not in written


def test_too_many_runs_or_none_are_refused():
    with pytest.raises(ValueError, match="from 1 to 8"):
        page("t", "n", {})
