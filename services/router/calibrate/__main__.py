"""``python -m services.router.calibrate --route R``: calibrates a route on its own traffic."""

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.router.calibrate import picture
from services.router.calibrate.artefact import Artefact, Data, write
from services.router.calibrate.evidence import (
    BadEvidence,
    Found,
    from_labelled,
    from_ledger,
)
from services.router.calibrate.process import MEASURES, Result, Settings, calibrate_records
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure

CERTIFIED, MISSING, REFUSED = 0, 3, 2
"""Exit statuses: certified; too little evidence, the safe default is written; bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    options = _parser().parse_args(arguments)
    console, errors = Console(), Console(stderr=True)
    ladder = tuple(filter(None, options.ladder.split(",")))
    try:
        if options.labelled:
            found = from_labelled(options.labelled, ladder)
        else:
            found = from_ledger(options.ledger, options.route, ladder)
        if not found.records:
            reasons = "; ".join(f"{count}: {reason}" for reason, count in found.left_out.items())
            raise BadEvidence(f"no pair of {options.route} can be used ({reasons})")
        settings = Settings(
            epsilon=options.epsilon,
            delta=options.delta,
            shadow_share=options.shadow,
            cost=options.cost,
            certify_share=options.certify_share,
            first_k=options.first_k,
            seed=options.seed,
            measures=tuple(map(Measure, options.measure)) if options.measure else MEASURES,
        )
        result = calibrate_records(found.records, settings)
    except ValueError as error:
        errors.print(f"[red]refused:[/red] {error}", highlight=False, soft_wrap=True)
        return REFUSED
    source = (options.labelled or options.ledger).name
    try:
        artefact = _write(
            options.out, options.route, source, found=found, result=result, settings=settings
        )
    except OSError as error:
        errors.print(f"[red]--out:[/red] {options.out} cannot be written: {error.strerror}")
        return REFUSED
    _report(console, options.out, artefact, result)
    return CERTIFIED if artefact.certificate.certified else MISSING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.router.calibrate",
        description="Choose a route's thresholds on its own paired evidence and certify them.",
    )
    parser.add_argument("--route", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ledger", type=Path, help="folder with the ledger's files")
    source.add_argument("--labelled", type=Path, help="JSONL or CSV file of labelled pairs")
    parser.add_argument("--epsilon", type=float, default=0.02, help="most quality that may be lost")
    parser.add_argument("--delta", type=float, default=0.05, help="chance of a wrong certificate")
    parser.add_argument("--out", type=Path, required=True, help="folder for artefact and picture")
    parser.add_argument("--ladder", default="", help="tiers, cheapest first, separated by commas")
    parser.add_argument("--shadow", type=float, default=0.05, help="share of requests sampled")
    parser.add_argument("--cost", choices=["micro_usd", "engine_ms"], default="micro_usd")
    parser.add_argument("--certify-share", type=float, default=0.6, help="kept for the test")
    parser.add_argument("--first-k", type=int, default=8, help="tokens that first_k looks at")
    parser.add_argument(
        "--measure",
        action="append",
        choices=[measure.value for measure in Measure],
        help="of certainty that may be used; first_k alone where a route streams; default: all",
    )
    parser.add_argument("--seed", type=int, default=77, help="of the split")
    return parser


def _write(
    out: Path, route: str, source: str, *, found: Found, result: Result, settings: Settings
) -> Artefact:
    times = [record.time for record in found.records if record.time]
    artefact = Artefact(
        route=route,
        version="unwritten",
        created=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ladder=found.ladder,
        judgement=result.judgement,
        certificate=result.calibration.certificate,
        bands=result.bands,
        data=Data(
            source=source,
            since=min(times, default=""),
            until=max(times, default=""),
            pairs=len(found.records),
            left_out=found.left_out,
            cost=settings.cost,
        ),
    )
    written = write(out / f"{route}.json", artefact)
    (out / f"{route}.html").write_text(picture.page(written, result.calibration), encoding="utf-8")
    return written


def _report(console: Console, out: Path, artefact: Artefact, result: Result) -> None:
    certificate, data = artefact.certificate, artefact.data
    table = Table(title=f"Calibration of {artefact.route}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    window = f", {data.since} to {data.until}" if data.since else ""
    rows = [
        ("ladder", " < ".join(map(str, artefact.ladder))),
        ("pairs", f"{data.pairs:,} from {data.source}{window}"),
        *(("left out", f"{count:,}: {reason}") for reason, count in data.left_out.items()),
        ("fitted on", f"{certificate.n_fit:,} pairs"),
        ("certified on", f"{certificate.n_certify:,} others"),
        ("test", certificate.method),
        ("asked for", (f"at most {100 * certificate.epsilon:g} points lost on average, "
         f"wrong with probability {certificate.delta:g} at most")),
    ]  # fmt: skip
    if certificate.certified:
        rows += [
            ("bound", f"{100 * certificate.bound:.2f} points; measured {_points(artefact)}"),
            ("certainty", str(certificate.thresholds.measure)),
            *(
                (f"tier {model.tier}", _rung(rung))
                for model, rung in zip(
                    artefact.ladder[:-1], certificate.thresholds.rungs, strict=True
                )
            ),
            ("escalation rate", f"{certificate.escalation_rate:.1%}"),
            ("saving", (f"{certificate.saving:.1%} of the top tier's {data.cost}, with "
             f"{certificate.shadow_share:.0%} of requests sampled as evidence")),
        ]  # fmt: skip
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in result.notes:
        console.print(note)
    if certificate.certified:
        console.print(f"[green]Certified.[/green] Artefact {artefact.version}.")
    elif certificate.pairs_missing is None:
        console.print(
            "[yellow]Not certified:[/yellow] no cheaper thresholds keep the tolerance, however "
            "many pairs there were. The top tier goes on answering every request."
        )
    else:
        console.print(
            f"[yellow]Not certified:[/yellow] about {certificate.pairs_missing:,} more pairs are "
            "needed. Until then the top tier answers every request."
        )
    console.print(f"Written: {out / artefact.route}.json and .html", soft_wrap=True)


def _points(artefact: Artefact) -> str:
    return f"{100 * artefact.certificate.loss:.2f}"


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


if __name__ == "__main__":
    sys.exit(main())
