"""The cost-quality curve as one HTML file: a drawing (SVG) with its numbers below, no scripts."""

from html import escape

from services.router.calibrate.certification import Calibration, Point
from services.router.calibrate.report import how_many
from services.router.routes.artefact import Artefact

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 55

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 780px; margin: 2rem auto; color: #222; }
svg { width: 100%; height: auto; } text { font-size: 13px; fill: #444; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: right; }
th { font-weight: 600; } .chosen { font-weight: 600; } .note { color: #666; }
"""


def page(artefact: Artefact, calibration: Calibration) -> str:
    """The whole file.

    Args:
        artefact: that the curve belongs to.
        calibration: whose candidates are drawn, as the certify part shows them.
    """
    certificate = artefact.certificate
    title = f"Cost and quality of {artefact.route}"
    if certificate.certified:
        verdict = (
            f"Certified: with probability {1 - certificate.delta:.0%} the mean loss is at most "
            f"{100 * certificate.epsilon:g} points; the upper limit of the chosen thresholds is "
            f"{100 * certificate.bound:.2f} points. Expected saving {certificate.saving:.1%}; "
            f"{artefact.ladder[-1].tier} answers {certificate.escalation_rate:.1%}."
        )
    elif certificate.pairs_missing is None:
        verdict = "Not certified: no cheaper thresholds keep the tolerance. The top tier answers."
    else:
        verdict = (
            f"Not certified: {how_many(certificate)} more pairs are needed. "
            "Until then the top tier answers every request."
        )
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{STYLE}</style>",
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(verdict)}</p>",
            _drawing(artefact, calibration),
            _table(artefact, calibration),
            f'<p class="note">{escape(_origin(artefact))}</p>',
            "</html>",
            "",
        ]
    )


def _origin(artefact: Artefact) -> str:
    certificate, data = artefact.certificate, artefact.data
    window = f", from {data.since} to {data.until}" if data.since else ""
    return (
        f"Ladder: {', '.join(map(str, artefact.ladder))}. Fitted on {certificate.n_fit:,} pairs, "
        f"certified on {certificate.n_certify:,} others{window}. "
        f"Costs in {data.cost}, with {certificate.shadow_share:.0%} of requests sampled as "
        f"evidence. Test: {certificate.method}. Assumes: {certificate.assumptions}. "
        f"Artefact {artefact.version}."
    )


def _drawing(artefact: Artefact, calibration: Calibration) -> str:
    """Cost to the right, lost points upwards; green points are certified."""
    curve = calibration.curve
    epsilon = artefact.certificate.epsilon
    losses = [0.0, epsilon, *(point.loss for point in curve)]
    low, high = min(losses) - 0.002, max(losses) * 1.1 + 0.002
    most = max([1.0, *(point.cost for point in curve)])

    def x(cost: float) -> float:
        return LEFT + cost / most * (WIDTH - LEFT - RIGHT)

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (loss - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="cost-quality curve">']
    for step in range(6):
        cost, loss = most * step / 5, low + (high - low) * step / 5
        parts += [
            (
                f'<line x1="{x(cost):.1f}" x2="{x(cost):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
                ' stroke="#eee"/>'
            ),
            (
                f'<text x="{x(cost):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                f"{cost:.0%}</text>"
            ),
            f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{100 * loss:.1f}</text>',
        ]
    parts += [
        (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(epsilon):.1f}" y2="{y(epsilon):.1f}"'
            ' stroke="#c33" stroke-dasharray="6 4"/>'
        ),
        f'<text x="{WIDTH - RIGHT}" y="{y(epsilon) - 6:.1f}" text-anchor="end">tolerance</text>',
        (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
            "cost, share of the top tier's for every request</text>"
        ),
        (
            f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
            "points of quality lost</text>"
        ),
        f'<circle cx="{x(1.0):.1f}" cy="{y(0.0):.1f}" r="5" fill="#222"/>',
        f'<text x="{x(1.0) - 8:.1f}" y="{y(0.0) - 8:.1f}" text-anchor="end">top tier</text>',
    ]
    line = " ".join(f"{x(point.cost):.1f},{y(point.loss):.1f}" for point in curve)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#888"/>')
    for point in curve:
        fill = "#1a7f37" if point.certified else "#bbb"
        edge, radius = ("#000", 7) if _is_chosen(artefact, point) else (fill, 4)
        parts.append(
            f'<circle cx="{x(point.cost):.1f}" cy="{y(point.loss):.1f}"'
            f' r="{radius}" fill="{fill}" stroke="{edge}"/>'
        )
    return "\n".join([*parts, "</svg>"])


def _is_chosen(artefact: Artefact, point: Point) -> bool:
    certificate = artefact.certificate
    return certificate.certified and point.thresholds == certificate.thresholds


def _table(artefact: Artefact, calibration: Calibration) -> str:
    rows = ["<table><tr><th>cost<th>points lost<th>p-value<th>certified<th>skip, accept by tier"]
    for point in calibration.curve:
        p_value = "not tested" if point.p_value is None else f"{point.p_value:.4f}"
        rungs = "; ".join(
            f"{rung.skip_above_gain:.3f}, "
            + ("any" if rung.accept_at_certainty is None else f"{rung.accept_at_certainty:.3f}")
            for rung in point.thresholds.rungs
        )
        chosen = ' class="chosen"' if _is_chosen(artefact, point) else ""
        rows.append(
            f"<tr{chosen}><td>{point.cost:.1%}<td>{100 * point.loss:.2f}<td>{p_value}"
            f"<td>{'yes' if point.certified else 'no'}<td>{rungs}"
        )
    return "\n".join([*rows, "</table>"])
