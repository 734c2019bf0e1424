"""The command line of a calibration: `pennyweight calibrate`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pennyweight.command.ending import INTERRUPTED, USAGE, end
from pennyweight.command.show import console
from services.router.calibrate.options import (
    LEDGER,
    BadOption,
    Cost,
    Options,
    a_propensity,
    a_share,
    a_share_or_all,
    a_time,
    at_least_one,
    complement,
)
from services.router.calibrate.wanted import Wanted, unknown, wanted
from services.router.calibrate.work import carry_out
from services.router.policy.certainty import Measure

CERTIFIED, MISSING = 0, 3
"""Exit statuses: certified; too little evidence, the safe default is written. Refused is USAGE."""

THE_ROUTES = "as the routes file says"
ROUTES_FILE = Path("policies/routes.yaml")

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
    tiers: Annotated[
        str | None,
        typer.Option(
            help="What the route's tiers are called in a labelled file, as small=cheap,large=dear.",
            show_default="as on the route",
        ),
    ] = None,
    routes_file: Annotated[
        Path | None,
        typer.Option(
            help="What is asked of the route, and which tiers it has.",
            show_default=str(ROUTES_FILE),
        ),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone",
            help="Try a labelled file without a routes file: its own tiers, or those of --ladder.",
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            help="Pairs before it are left out, as 2026-11-28T15:42:19Z.", show_default="all pairs"
        ),
    ] = None,
    lowest_propensity: Annotated[
        float | None,
        typer.Option(
            help="Lowest probability with which any request was drawn as evidence.",
            show_default="all pairs were drawn alike",
        ),
    ] = None,
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
        float, typer.Option(help="Share of the questions that is kept for the test.")
    ] = 0.6,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
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
            lowest_propensity=_checked("--lowest-propensity", lowest_propensity, a_propensity),
            since=_checked("--since", since, a_time),
            names=tiers,
        )
        if seed is not None:
            raise BadOption(
                "--seed: is no longer taken: a question's part follows from question and route"
            )
        if alone and (labelled is None or routes_file is not None):
            raise BadOption("--alone: is for --labelled without --routes-file")
        asked = unknown(route, out or Path()) if alone else _asked_of(route, routes_file, options)
        path = out / f"{route}.json" if out else asked.artefact
        status = CERTIFIED if carry_out(options, asked, path) else MISSING
    except ValueError as error:
        end(str(error), code=USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)


def _asked_of(route: str, routes_file: Path | None, options: Options) -> Wanted:
    """What the routes file asks of the route; one that is missing need not be, for a table."""
    path = routes_file or ROUTES_FILE
    if routes_file is None and options.labelled is not None and not path.exists():
        raise BadOption(f"--routes-file: {path} is missing; --alone does without")
    return wanted(path, route)


T = TypeVar("T")
U = TypeVar("U")
Check = Callable[[str, T], T]


def _checked(name: str, value: T | None, check: Callable[[str, T], U]) -> U | None:
    return None if value is None else check(name, value)


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
