"""The command line of a calibration: `pennyweight calibrate`."""

import argparse
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from services.router.calibrate import picture
from services.router.calibrate.evidence import BadEvidence, Found, from_labelled, from_ledger
from services.router.calibrate.process import Result, Settings, calibrate_records
from services.router.calibrate.report import print_report
from services.router.calibrate.wanted import Wanted, named, obstacles, wanted
from services.router.policy.certainty import Measure
from services.router.routes.artefact import Artefact, Data, write

CERTIFIED, MISSING, REFUSED = 0, 3, 2
"""Exit statuses: certified; too little evidence, the safe default is written; bad input."""

LEDGER = Path("state/ledger")
ROUTES_FILE = Path("policies/routes.yaml")


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    options = _parser().parse_args(arguments)
    console, errors = Console(), Console(stderr=True)
    progress = _progress(errors)
    task = progress.add_task("reading pairs", total=1.0)
    try:
        asked = wanted(options.routes_file, options.route)
        settings = _settings(options, asked)
        with progress:
            found = _found(options, asked)
            result = calibrate_records(
                found.records,
                settings,
                lambda doing, done: progress.update(task, description=doing, completed=done),
            )
    except ValueError as error:
        return _refused(errors, str(error))
    path = options.out / f"{options.route}.json" if options.out else asked.artefact
    try:
        written = write(path, _artefact(options, asked, found, result, settings))
        page = picture.page(written, result.calibration)
        path.with_suffix(".html").write_text(page, encoding="utf-8")
    except OSError as error:
        return _refused(errors, f"--out: {path} cannot be written: {error.strerror}")
    print_report(console, path, written, result.notes, tuple(obstacles(written, asked)))
    return CERTIFIED if written.certificate.certified else MISSING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pennyweight calibrate",
        description="Choose a route's thresholds on its own paired evidence and certify them.",
        epilog="Exit status: 0 certified; 3 not certified, and the safe default is written, by "
        "which the top tier answers every request; 2 refused.",
    )
    of_route = "; default: as the routes file says of the route"
    parser.add_argument("--route", required=True)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--ledger", type=Path, help=f"folder with the ledger's files; default: {LEDGER}"
    )
    source.add_argument("--labelled", type=Path, help="JSONL or CSV file of labelled pairs")
    parser.add_argument(
        "--routes-file", type=Path, default=ROUTES_FILE, help="default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for artefact and picture; default: where routers look for them, which is "
        "the folder `calibration` beside the routes file unless that says otherwise",
    )
    parser.add_argument(
        "--epsilon", type=float, help=f"most quality that may be lost, as 0.02{of_route}"
    )
    parser.add_argument(
        "--delta", type=float, help=f"chance of a wrong certificate, as 0.05{of_route}"
    )
    parser.add_argument("--ladder", help=f"tiers, cheapest first, separated by commas{of_route}")
    parser.add_argument("--shadow", type=float, help=f"share of requests sampled{of_route}")
    parser.add_argument("--cost", choices=["micro_usd", "engine_ms"], default="micro_usd")
    parser.add_argument(
        "--certify-share",
        type=float,
        default=0.6,
        help="of the pairs, kept for the test; default: %(default)s",
    )
    parser.add_argument("--first-k", type=int, help=f"tokens that first_k looks at{of_route}")
    parser.add_argument(
        "--measure",
        action="append",
        choices=[measure.value for measure in Measure],
        help="of certainty that may be used; default: all, or first_k alone where the route holds "
        "back just the first tokens",
    )
    parser.add_argument("--seed", type=int, default=77, help="of the split; default: %(default)s")
    return parser


def _settings(options: argparse.Namespace, asked: Wanted) -> Settings:
    def told(option: float | None, default: float) -> float:
        return default if option is None else option

    return Settings(
        epsilon=told(options.epsilon, asked.epsilon),
        delta=told(options.delta, asked.delta),
        shadow_share=told(options.shadow, asked.shadow_share),
        cost=options.cost,
        certify_share=options.certify_share,
        first_k=asked.first_k if options.first_k is None else options.first_k,
        seed=options.seed,
        measures=tuple(map(Measure, options.measure)) if options.measure else asked.measures,
        watch=asked.watch,
    )


def _found(options: argparse.Namespace, asked: Wanted) -> Found:
    """The evidence, by what the command line or else the routes file says.

    Raises:
        BadEvidence: there is none that can be used.
    """
    served = [one.tier for one in asked.ladder]
    ladder = served
    if options.ladder is not None:
        ladder = [name for name in options.ladder.split(",") if name]
        unknown = [name for name in ladder if name not in served]
        if unknown or len(set(ladder)) < max(2, len(ladder)):
            raise BadEvidence(
                f"--ladder: must be at least two of {', '.join(served)}, got {options.ladder!r}"
            )
    elif len(ladder) < 2:  # noqa: PLR2004 -- a pair
        raise BadEvidence(f"--route: {options.route} has no tiers to choose from")
    if options.labelled is not None:
        found = from_labelled(options.labelled, ladder)
    else:
        first_k = asked.first_k if options.first_k is None else options.first_k
        found = from_ledger(options.ledger or LEDGER, options.route, ladder, first_k)
    if not found.records:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in found.left_out.items())
        raise BadEvidence(f"no pair of {options.route} can be used ({reasons})")
    if not any(getattr(one.tiers[-1], options.cost) for one in found.records):
        raise BadEvidence(
            f"--cost: no pair says what {found.ladder[-1].tier} cost in {options.cost}, so that "
            "nothing tells what is cheaper"
        )
    return found


def _artefact(
    options: argparse.Namespace, asked: Wanted, found: Found, result: Result, settings: Settings
) -> Artefact:
    times = [record.time for record in found.records if record.time]
    source: Path = options.labelled or options.ledger or LEDGER
    return Artefact(
        route=options.route,
        version="unwritten",
        created=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ladder=named(found.ladder, asked.ladder),
        judgement=result.judgement,
        certificate=result.calibration.certificate,
        bands=result.bands,
        data=Data(
            source=source.name,
            since=min(times, default=""),
            until=max(times, default=""),
            pairs=len(found.records),
            left_out=found.left_out,
            cost=settings.cost,
        ),
        watched_loss=result.watched_loss,
    )


def _progress(errors: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


def _refused(errors: Console, sentence: str) -> int:
    errors.print(Text.assemble(("refused: ", "red"), sentence), soft_wrap=True)
    return REFUSED
