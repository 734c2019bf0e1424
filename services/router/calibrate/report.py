"""What a calibration says on a screen."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.router.calibrate.certification import MIN_TO_FIT
from services.router.calibrate.process import Result
from services.router.calibrate.spending import level
from services.router.policy.calibration import Certificate, Rung
from services.router.routes.artefact import Artefact, Data


def print_report(
    console: Console,
    path: Path,
    artefact: Artefact,
    result: Result,
    obstacles: tuple[str, ...],
) -> None:
    """The table, the verdict, and what a person should know beside them.

    Args:
        console: prints it.
        path: where the artefact was written.
        artefact: as it was written.
        result: that it came from.
        obstacles: why routers will not use it, a sentence each.
    """
    console.print(_table(artefact, result))
    for note in result.notes:
        console.print(note, markup=False)
    console.print(Text.from_markup(_verdict(artefact)))
    if result.calibration.looked and not artefact.certificate.certified:
        console.print(_next_look(artefact.certificate))
    console.print(f"Written: {path} and {path.with_suffix('.html')}", markup=False, soft_wrap=True)
    if obstacles:
        console.print("Routers will not use it as the routes file stands:", style="yellow")
    for obstacle in obstacles:
        console.print(f"  {obstacle}", markup=False)


def _table(artefact: Artefact, result: Result) -> Table:
    certificate, data = artefact.certificate, artefact.data
    table = Table(title=f"Calibration of {artefact.route}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    window = f", {data.since} to {data.until}" if data.since else ""
    rows = [
        ("ladder", " < ".join(map(str, artefact.ladder))),
        ("pairs", f"{data.pairs:,} from {data.source}{window}"),
        *(("left out", f"{count:,}: {reason}") for reason, count in data.left_out.items()),
        *_repeats(data),
        *_unknown(artefact, result),
        ("fitted on", f"{certificate.n_fit:,} questions"),
        ("certified on", f"{certificate.n_certify:,} others"),
        ("test", certificate.method),
        ("asked for", (f"at most {100 * certificate.epsilon:g} points lost on average, "
         f"wrong with probability {certificate.delta:g} at most")),
        *_look(certificate),
    ]  # fmt: skip
    if certificate.certified:
        loss = 100 * certificate.loss
        rows += [
            ("bound", f"{100 * certificate.bound:.2f} points; measured {loss:.2f}"),
            ("guardrail", f"its judge sees {100 * artefact.level:.2f} points lost in these pairs"),
            ("certainty", str(certificate.thresholds.measure)),
            *(
                (f"tier {model.tier}", _rung(rung))
                for model, rung in zip(
                    artefact.ladder[:-1], certificate.thresholds.rungs, strict=True
                )
            ),
            (f"answered by {artefact.ladder[-1].tier}", f"{certificate.escalation_rate:.1%}"),
            ("saving", (f"{certificate.saving:.1%} of the top tier's {data.cost}, with "
             f"{certificate.shadow_share:.0%} of requests sampled as evidence")),
        ]  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table


Row = tuple[str, str]


def _repeats(data: Data) -> list[Row]:
    if not data.repeats:
        return []
    return [("repeats", f"{data.repeats:,} pairs ask what an older one had asked")]


def _unknown(artefact: Artefact, result: Result) -> list[Row]:
    shares = zip(artefact.ladder[:-1], result.unknown, strict=True)
    said = [f"{share:.1%} of {model.tier}'s answers" for model, share in shares if share > 0.0]
    return [("certainty unknown", ", ".join(said))] if said else []


def _look(certificate: Certificate) -> list[Row]:
    if certificate.look == 1 or certificate.level is None:
        return []
    share = certificate.level / certificate.delta
    return [
        ("look", f"number {certificate.look} at this evidence, which may take {share:.1%} of that")
    ]


def _verdict(artefact: Artefact) -> str:
    missing = artefact.certificate.pairs_missing
    if artefact.certificate.certified:
        return f"[green]Certified.[/green] Artefact {artefact.version}."
    if missing is None:
        return (
            "[yellow]Not certified:[/yellow] no thresholds keep the tolerance and save anything "
            f"while {artefact.certificate.shadow_share:.0%} of requests are sampled as evidence, "
            "however many pairs there were. The top tier goes on answering every request."
        )
    return (
        f"[yellow]Not certified:[/yellow] {how_many(artefact)} are needed. "
        "Until then the top tier answers every request."
    )


def _next_look(certificate: Certificate) -> str:
    share = level(1.0, certificate.look + 1)
    return (
        f"This was look {certificate.look} at this evidence. The next one may take {share:.1%} of "
        "the risk that is allowed: gather first."
    )


def how_many(artefact: Artefact) -> str:
    """The missing pairs; a lower limit where there were too few to see how the tiers differ."""
    certificate = artefact.certificate
    word = "at least" if certificate.n_fit < MIN_TO_FIT else "about"
    others = " of further questions" if artefact.data.repeats else ""
    return f"{word} {certificate.pairs_missing:,} more pairs{others}"


def _rung(rung: Rung) -> str:
    if rung.skip_above_gain == -1.0:
        return "never used"
    skip = (
        "never skipped"
        if rung.skip_above_gain == 1.0
        else f"skipped above a predicted gain of {rung.skip_above_gain:.3f}"
    )
    if rung.accept_at_certainty is None:
        return f"{skip}; its answer stands"
    return f"{skip}; its answer stands at a certainty of {rung.accept_at_certainty:.3f} or above"
