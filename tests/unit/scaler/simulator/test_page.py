"""The page stands by itself, says what runs came to, and trusts no name."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Pool, run
from services.scaler.simulator.page import COLOURS, INK, MAX_PARTS, Part, page, pages
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.trial import thinned

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
    with pytest.raises(ValueError, match="of 1 to 8 runs"):
        page("t", "n", {})


class Reader(HTMLParser):
    """Every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_whole_and_its_pictures_are_xml(written):
    reader = Reader()
    reader.feed(written)
    assert reader.open == []
    assert reader.seen.count("tr") == 3
    svg = ET.fromstring(written[written.index("<svg") : written.index("</svg>") + 6])
    space = "{http://www.w3.org/2000/svg}"
    titles = [one.text for one in svg.iter(f"{space}text")]
    assert {"load (requests a second)", "ready replicas", "cost so far (USD)"} < set(titles)
    colours = re.findall(r"stroke: (#[0-9a-f]{6})", written)
    assert [colours.count(one) for one in COLOURS[:3]] == [3, 3, 0]


def test_a_page_of_many_pools_stays_small():
    pool = Pool(SERVING, 2.0, (60.0,), 3, usd_per_hour=2.0)
    course = run(pool, HOUR, Keep(3))
    ticks = {
        name: np.tile(getattr(course.ticks, name), 400)
        for name in course.ticks.__dataclass_fields__
    }
    count = len(ticks["at"])
    ticks["at"] = np.arange(count) * 15.0
    rng = np.random.default_rng(1)
    ticks |= {name: rng.lognormal(2.0, 1.0, count).round() for name in ("arrived", "ready", "ttft")}
    long = replace(course, ticks=replace(course.ticks, **ticks))
    parts = [Part(f"pool {at}", {"in force": long, "planned": long}) for at in range(MAX_PARTS)]
    written = pages("t", "n", parts)
    assert written.count("<svg") == MAX_PARTS
    assert len(written.encode()) < 3_000_000
    with pytest.raises(ValueError, match=f"from 1 to {MAX_PARTS} parts"):
        pages("t", "n", [*parts, parts[0]])


def test_few_points_still_show_the_worst_moment():
    course = run(Pool(SERVING, 2.0, (60.0,), 3), HOUR, Keep(3))
    ttft = course.ticks.ttft.copy()
    ttft[101] = 9.0
    few = thinned(replace(course, ticks=replace(course.ticks, ttft=ttft)), 10)
    assert len(few.ticks.at) <= 10
    assert few.ticks.ttft.max() == 9.0


def test_nothing_but_a_page_loads_what_draws():
    asked = "import sys, services.scaler.try_out.days, services.scaler.try_out.traces; "
    subprocess.run(
        [sys.executable, "-c", f"{asked}sys.exit('matplotlib' in sys.modules)"], check=True
    )
