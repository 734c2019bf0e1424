"""The cost-quality curve, and the page it stands on."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from services.router.calibrate.certification import Calibration, Point
from services.router.calibrate.page import page
from services.router.calibrate.picture import CERTIFIED, INK, LIMIT, MUTED, PAPER, SIZES, curve
from services.router.policy.calibration import Certificate, Judgement, Rung, Thresholds
from services.router.policy.drift import Bands, Rate
from services.router.routes.artefact import Artefact, Data, Model
from services.router.routes.artefact_file import read
from tests.making.policies import calibrated

ROOT = Path(__file__).parents[4]

CHOSEN = Rung(0.716, -0.016)


def point(cost: float, loss: float, rung: Rung = CHOSEN, *, certified: bool = True) -> Point:
    return Point(Thresholds((rung,)), cost, loss, 0.01 if certified else None, certified)


POINTS = (
    point(0.9, 0.0, Rung(0.1, -0.1)),
    point(0.9, 0.0, Rung(0.1, -0.2)),
    point(0.9, 0.0, Rung(0.1, -0.3)),
    point(0.4, 0.038),
    point(0.38, 0.047, Rung(1.0, None), certified=False),
)


def certificate(**changes: object) -> Certificate:
    made = calibrated(Rung(1.0, None)).certificate
    shown = {"thresholds": Thresholds((CHOSEN,)), "epsilon": 0.05, "bound": 0.0476}
    shown |= {"loss": 0.0381, "saving": 0.6}
    return replace(made, **(shown | changes))  # type: ignore[arg-type]


def artefact(**changes: object) -> Artefact:
    made = Artefact(
        route="support",
        version="7",
        created="2026-11-01T00:00:00Z",
        ladder=(Model("small", "tiny", "int8"), Model("large", "big", "int8")),
        judgement=Judgement.safe(2),
        certificate=certificate(),
        bands=Bands(Rate(0.3, 100), (None,), (None,)),
        data=Data("ledger", "", "", 1000, {}, "micro_usd"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def texts(svg: str) -> list[str]:
    return [
        "".join(found.itertext()).strip()
        for found in ET.fromstring(svg).iter()
        if "text" in found.tag
    ]


@pytest.mark.parametrize("size", SIZES)
def test_axes_and_points_say_what_they_are_in_round_numbers(size: str) -> None:
    shown = texts(curve(certificate(), POINTS, size))
    whole = " ".join(shown)
    assert "cost, % of what the top tier takes for every request" in whole
    assert "quality lost against the top tier, points of 100" in whole
    # Some 6 units a character, of the 281 that a narrow drawing is wide.
    assert size == "wide" or max(map(len, shown)) <= 36
    assert {"0%", "20%", "40%", "60%", "80%", "100%"} <= set(shown)
    assert {"0", "1", "2", "3", "4", "5"} <= set(shown)
    assert {"tolerance, 5 points", "top tier", "certified", "not certified"} <= set(shown)
    assert "certified: 40% of the cost," in shown
    assert "3.8 points lost here," in shown
    assert "at most 4.8 with 95% probability" in " ".join(shown)


def test_what_is_not_certified_is_not_said_to_be() -> None:
    shown = texts(curve(certificate(certified=False), POINTS[-1:]))
    assert "not certified" in shown
    assert not any(text.startswith("certified") for text in shown)
    assert "top tier" in texts(curve(certificate(certified=False), ()))


def test_the_same_calibration_is_drawn_the_same() -> None:
    assert curve(certificate(), POINTS) == curve(certificate(), POINTS)


def test_every_colour_follows_the_screen() -> None:
    svg = curve(certificate(), POINTS)
    drawn = re.sub(r"<style>.*?</style>", "", svg)
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)
    assert "prefers-color-scheme: dark" in svg


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("shade", [INK, MUTED, CERTIFIED, LIMIT], ids=lambda shade: shade.name)
def test_what_is_written_stands_out_on_light_and_dark_screens(theme: str, shade: object) -> None:
    """WCAG 2's contrast for text of this size."""
    tones = [luminance(getattr(one, theme)) for one in (shade, PAPER)]
    assert (max(tones) + 0.05) / (min(tones) + 0.05) >= 4.5


def rows(text: str) -> list[list[str]]:
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", text)[1:]]


def test_equal_rows_are_one() -> None:
    text = page(artefact(), Calibration(certificate(), POINTS))
    assert rows(text) == [
        ["90.0%", "0.00", "0.0100", "yes", "0.100", "-0.100", "3"],
        ["40.0%", "3.80", "0.0100", "yes", "0.716", "-0.016", ""],
        ["38.0%", "4.70", "not tested", "no", "never skipped", "any", ""],
    ]
    assert text.count('class="chosen"') == 1


def test_the_chosen_thresholds_have_a_row_of_their_own() -> None:
    twins = (point(0.4, 0.038, Rung(0.5, -0.5)), point(0.4, 0.038))
    found = rows(page(artefact(), Calibration(certificate(), twins)))
    assert [row[4] for row in found] == ["0.500", "0.716"]


def test_one_point_is_no_points() -> None:
    text = page(artefact(certificate=certificate(epsilon=0.01)), Calibration(certificate(), ()))
    assert "the mean loss is at most 1 point; " in text
    text = page(artefact(certificate=certificate(epsilon=0.015)), Calibration(certificate(), ()))
    assert "the mean loss is at most 1.5 points; " in text


PUBLISHED = [
    path
    for path in sorted(ROOT.glob("policies/calibration/*.json"))
    if path.stem != "support-trial"  # made by whoever tries it, and not in the tree
]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_page_beside_a_published_calibration_is_its_own_and_of_today(path: Path) -> None:
    text, made = path.with_suffix(".html").read_text(), read(path)
    assert f"Artefact {made.version}." in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg ") == len(SIZES)
    for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        assert {"0%", "20%", "40%", "60%", "80%", "100%"} <= set(texts(svg))
        assert any(line.startswith("certified: ") for line in texts(svg))
    shown = [tuple(row[:4]) for row in rows(text)]
    repeated = [row for row in set(shown) if shown.count(row) > 1]
    assert len(repeated) <= 1  # the chosen one stands apart from its equals
    assert text.count('class="chosen"') == 1


def test_a_page_needs_nothing_but_itself() -> None:
    text = page(artefact(route="<b>"), Calibration(certificate(), POINTS))
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\"]*", text)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert text.count("<svg ") == len(SIZES)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
