"""The page beside a calibration: verdict, cost-quality curve and every candidate, in one HTML file.

It opens from the disk, without scripts and without a server.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape

from services.router.calibrate import picture
from services.router.calibrate.certification import Calibration, Point
from services.router.calibrate.report import how_many
from services.router.policy.calibration import Rung
from services.router.routes.artefact import Artefact

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 780px; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
svg { width: 100%; height: auto; } .narrow { display: none; }
@media (max-width: 560px) { .wide { display: none; } .narrow { display: block; } }
.rows { overflow-x: auto; } table { border-collapse: collapse; white-space: nowrap; }
td, th { padding: .2rem .8rem .2rem 0; text-align: right; } th { font-weight: 600; }
tr { border-bottom: 1px solid var(--grid); } .chosen { font-weight: 600; color: var(--certified); }
.note { color: var(--muted); }
"""

LEGEND = (
    "Alike: how many thresholds come to the same numbers; those of one of them are shown. Skip "
    "above: the tier is skipped where the top tier is predicted to gain more. Stands from: its "
    "answer stands at this certainty, a log-probability, or above."
)


def page(artefact: Artefact, calibration: Calibration) -> str:
    """The whole file.

    Args:
        artefact: that the curve belongs to.
        calibration: whose candidates are drawn, as the certify part shows them.
    """
    certificate, points = artefact.certificate, calibration.curve
    title = escape(f"Cost and quality of {artefact.route}")
    drawings = [
        f'<div class="{size}">{picture.curve(certificate, points, size)}</div>'
        for size in picture.SIZES
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>{escape(_verdict(artefact))}</p>",
            *drawings,
            _table(artefact, points),
            f'<p class="note">{escape(_origin(artefact))}</p>',
            "</body></html>",
            "",
        ]
    )


def _verdict(artefact: Artefact) -> str:
    certificate = artefact.certificate
    if certificate.certified:
        return (
            f"Certified: with probability {1 - certificate.delta:.0%} the mean loss is at most "
            f"{picture.points_of(100 * certificate.epsilon)}; the upper limit of the chosen "
            f"thresholds is {100 * certificate.bound:.2f} points. Expected saving "
            f"{certificate.saving:.1%}; {artefact.ladder[-1].tier} answers "
            f"{certificate.escalation_rate:.1%}."
        )
    if certificate.pairs_missing is None:
        return "Not certified: no cheaper thresholds keep the tolerance. The top tier answers."
    return (
        f"Not certified: {how_many(artefact)} are needed. "
        "Until then the top tier answers every request."
    )


def _origin(artefact: Artefact) -> str:
    certificate, data = artefact.certificate, artefact.data
    window = f", from {data.since} to {data.until}" if data.since else ""
    repeats = f"; {data.repeats:,} pairs repeat a question" if data.repeats else ""
    return (
        f"Ladder: {', '.join(map(str, artefact.ladder))}. Fitted on {certificate.n_fit:,} "
        f"questions, certified on {certificate.n_certify:,} others{window}{repeats}. "
        f"Costs in {data.cost}, with {certificate.shadow_share:.0%} of requests sampled as "
        f"evidence. Test: {certificate.method}, look "
        f"{certificate.look} at this evidence. Assumes: {certificate.assumptions}. "
        f"Artefact {artefact.version}."
    )


def _table(artefact: Artefact, points: Sequence[Point]) -> str:
    """A row for every result; thresholds that come to the same share one, under the first of them.

    The chosen thresholds have a row of their own.
    """
    if not points:
        return ""
    chosen = artefact.certificate.thresholds if artefact.certificate.certified else None
    keys = [(*_result(point), point.thresholds == chosen) for point in points]
    times = Counter(keys)
    first = dict(zip(reversed(keys), reversed(points), strict=True))
    lower = [escape(model.tier) for model in artefact.ladder[:-1]]
    names = [f"{tier}: {what}" for tier in lower for what in ("skip above", "stands from")]
    rows = []
    for key, count in times.items():
        *result, is_chosen = key
        cells = [*result, *(cell for rung in first[key].thresholds.rungs for cell in _rung(rung))]
        cells.append(f"{count:,}" if count > 1 else "")
        start = '<tr class="chosen">' if is_chosen else "<tr>"
        rows.append(start + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = ["cost", "points lost", "p-value", "certified", *names, "alike"]
    head = "".join(f"<th>{name}</th>" for name in names)
    return "\n".join(
        [
            '<div class="rows"><table>',
            f"<thead><tr>{head}</tr></thead><tbody>",
            *rows,
            "</tbody></table></div>",
            f'<p class="note">{LEGEND}</p>',
        ]
    )


def _result(point: Point) -> tuple[str, ...]:
    """What thresholds come to, as it is shown."""
    return (
        f"{point.cost:.1%}",
        f"{100 * point.loss:.2f}",
        "not tested" if point.p_value is None else f"{point.p_value:.4f}",
        "yes" if point.certified else "no",
    )


def _rung(rung: Rung) -> tuple[str, str]:
    if rung.skip_above_gain == -1.0:
        return "never used", ""
    skip = "never skipped" if rung.skip_above_gain == 1.0 else f"{rung.skip_above_gain:.3f}"
    accept = rung.accept_at_certainty
    return skip, "any" if accept is None else f"{accept:.3f}"
