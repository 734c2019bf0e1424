"""The command line of a calibration: `pennyweight calibrate`."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pennyweight.command.ending import INTERRUPTED, USAGE, end
from pennyweight.command.show import console
from services.router.calibrate.evidence import BadEvidence, Found, from_ledger
from services.router.calibrate.labelled import from_labelled
from services.router.calibrate.options import (
    LEDGER,
    Cost,
    Options,
    a_share,
    a_share_or_all,
    at_least_one,
    complement,
)
from services.router.calibrate.page import page
from services.router.calibrate.process import Result, Settings, calibrate_records
from services.router.calibrate.report import print_report
from services.router.calibrate.wanted import Wanted, named, obstacles, wanted
from services.router.policy.certainty import Measure
from services.router.routes.artefact import Artefact, Data, write

CERTIFIED, MISSING = 0, 3
"""Exit statuses: certified; too little evidence, the safe default is written. Refused is USAGE."""

THE_ROUTES = "as the routes file says"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Hidden = Annotated[float | None, typer.Option(hidden=True)]
"""An option's name of the release before; gone with the next."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    try:
        app(args=arguments, prog_name="pennyweight calibrate")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return CERTIFIED


@app.command(
    epilog="Exit codes: 0 certified; 3 not certified, and the safe default is written, by which "
    "the top tier answers every request; 2 refused; 130 interrupted."
)
def calibrate(
    *,
    route: Annotated[str, typer.Option(help="The route.", show_default=False)],
    ledger: Annotated[
        Path | None, typer.Option(help="Folder with the ledger's files.", show_default=str(LEDGER))
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="JSONL or CSV file of labelled pairs, in place of a ledger.", show_default=False
        ),
    ] = None,
    routes_file: Annotated[
        Path, typer.Option(help="What is asked of the route, and which tiers it has.")
    ] = Path("policies/routes.yaml"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the calibration and its picture.",
            show_default="where routers look for them",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Most quality that may be lost on average, as 0.02.", show_default=THE_ROUTES
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Probability with which the certificate is right, as 0.95.",
            show_default=THE_ROUTES,
        ),
    ] = None,
    evidence_share: Annotated[
        float | None,
        typer.Option(
            help="Share of requests sampled as evidence, whose cost counts.",
            show_default=THE_ROUTES,
        ),
    ] = None,
    first_tokens: Annotated[
        int | None,
        typer.Option(help="How many the measure first_k looks at.", show_default=THE_ROUTES),
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option(
            help="Its tiers, cheapest first, separated by commas.", show_default=THE_ROUTES
        ),
    ] = None,
    measure: Annotated[
        list[Measure] | None,
        typer.Option(
            help="Measure of certainty that may be used. May be given again for another.",
            metavar="|".join(Measure),
            show_default="all that the route can use",
        ),
    ] = None,
    cost: Annotated[Cost, typer.Option(help="What is to be saved.")] = Cost.MICRO_USD,
    certify_share: Annotated[
        float, typer.Option(help="Share of the pairs that is kept for the test.")
    ] = 0.6,
    seed: Annotated[int, typer.Option(help="The same seed splits the pairs in the same way.")] = 77,
    epsilon: Hidden = None,
    delta: Hidden = None,
    shadow: Hidden = None,
    first_k: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Choose a route's thresholds on its own paired evidence and certify them.

    Writes the calibration, which routers take up by themselves, and its cost-quality curve.
    """
    try:
        options = Options(
            route=route,
            ledger=ledger,
            labelled=labelled,
            tolerance=_asked(("--tolerance", tolerance), ("--epsilon", epsilon), a_share),
            confidence=_asked(
                ("--confidence", confidence), ("--delta", delta), a_share, complement
            ),
            evidence_share=_asked(
                ("--evidence-share", evidence_share), ("--shadow", shadow), a_share_or_all
            ),
            first_tokens=_asked(
                ("--first-tokens", first_tokens), ("--first-k", first_k), at_least_one
            ),
            ladder=ladder,
            measures=measure or (),
            cost=cost,
            certify_share=a_share("--certify-share", certify_share),
            seed=seed,
        )
        asked = wanted(routes_file, route)
        path = out / f"{route}.json" if out else asked.artefact
        status = _calibrate(options, asked, path)
    except ValueError as error:
        end(str(error), code=USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)


T = TypeVar("T")
Check = Callable[[str, T], T]


def _asked(
    new: tuple[str, T | None],
    old: tuple[str, T | None],
    check: Check[T],
    old_check: Check[T] | None = None,
) -> T | None:
    """What an option says, under its name or that of the release before, which is pointed out."""
    (name, value), (old_name, old_value) = new, old
    if old_value is not None:
        note = f"{old_name} is now {name}{', 1 minus it' if old_check else ''}."
        console(stderr=True).print(note, style="yellow")
    if value is not None:
        return check(name, value)
    return None if old_value is None else (old_check or check)(old_name, old_value)


def _calibrate(options: Options, asked: Wanted, path: Path) -> int:
    """Reads, calibrates, writes and prints; returns the exit status.

    Raises:
        ValueError: something that was asked cannot be, or the evidence cannot be used.
    """
    progress = _progress(console(stderr=True))
    task = progress.add_task("reading pairs", total=1.0)
    settings = options.settings(asked)
    with progress:
        found = _found(options, asked)
        result = calibrate_records(
            found.records,
            settings,
            lambda doing, done: progress.update(task, description=doing, completed=done),
        )
    try:
        written = write(path, _artefact(options, asked, found, result, settings))
        text = page(written, result.calibration)
        path.with_suffix(".html").write_text(text, encoding="utf-8")
    except OSError as error:
        end(f"--out: {path} cannot be written: {error.strerror}", code=USAGE)
    print_report(console(), path, written, result.notes, tuple(obstacles(written, asked)))
    return CERTIFIED if written.certificate.certified else MISSING


def _found(options: Options, asked: Wanted) -> Found:
    """The evidence.

    Raises:
        ValueError: there is none that can be used.
    """
    ladder = options.tiers(asked)
    if options.labelled is not None:
        found = from_labelled(options.labelled, ladder)
    else:
        first_tokens = options.settings(asked).first_k
        found = from_ledger(options.source, options.route, ladder, first_tokens)
    if not found.records:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in found.left_out.items())
        raise BadEvidence(f"no pair of {options.route} can be used ({reasons})")
    if not any(getattr(record.tiers[-1], options.cost) for record in found.records):
        raise BadEvidence(
            f"--cost: no pair says what {found.ladder[-1].tier} cost in {options.cost}, so that "
            "nothing tells what is cheaper"
        )
    return found


def _artefact(
    options: Options, asked: Wanted, found: Found, result: Result, settings: Settings
) -> Artefact:
    times = [record.time for record in found.records if record.time]
    return Artefact(
        route=options.route,
        version="unwritten",
        created=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ladder=named(found.ladder, asked.ladder),
        judgement=result.judgement,
        certificate=result.calibration.certificate,
        bands=result.bands,
        data=Data(
            source=options.source.name,
            since=min(times, default=""),
            until=max(times, default=""),
            pairs=len(found.records),
            left_out=found.left_out,
            cost=settings.cost,
        ),
        watched_loss=result.watched_loss,
        # Labels are no judge of a route: how often that finds answers worse is not known from them.
        spare=result.spare if options.labelled is None or result.watched_loss is not None else None,
    )


def _progress(errors: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
