"""From what the command line asks to a calibration that is written down and reported."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pennyweight.command.show import console
from services.router.calibrate.evidence import BadEvidence, Found, from_ledger
from services.router.calibrate.labelled import from_labelled
from services.router.calibrate.looks import Look, file_of, keep, look_of, looks_in, moment, numbered
from services.router.calibrate.options import Options, tier_names
from services.router.calibrate.page import page
from services.router.calibrate.process import Result, Settings, calibrate_records
from services.router.calibrate.report import print_report
from services.router.calibrate.wanted import Wanted, named, obstacles
from services.router.routes.artefact import Artefact, Data, Model
from services.router.routes.artefact_file import BadArtefact, are_same, read, write

ALONE = (
    "Without a routes file: what the command line left out are defaults, and no router looks for "
    "the calibration."
)


SAME = "The calibration that is there says the same, of the same evidence: it stays as it is."


class NotWritten(ValueError):
    """A file cannot be written; the message names it and the option that leads there."""


def carry_out(options: Options, asked: Wanted, path: Path) -> bool:
    """Reads, calibrates, writes and prints.

    Args:
        options: of the command line.
        asked: of the route.
        path: where the calibration goes.

    Returns:
        whether anything was certified.

    Raises:
        ValueError: something that was asked cannot be, the evidence cannot be used, or a file
            cannot be written.
    """
    progress = _progress(console(stderr=True))
    task = progress.add_task("reading pairs", total=1.0)
    with progress:
        found = _found(options, asked)
        settings = _settings(options, asked, found)
        ladder = named(found.ladder, asked.ladder)
        look = _look(asked, found, settings, ladder)
        result = calibrate_records(
            found.records,
            replace(settings, look=look.number),
            lambda doing, done: progress.update(task, description=doing, completed=done),
            route=options.route,
        )
    certificate = result.calibration.certificate
    if result.calibration.looked:
        _keep(asked, replace(look, certified=certificate.certified))
    try:
        made = _artefact(options, ladder, found, result, settings)
        kept = _same_there(path, made)
        written = kept or write(path, made)
        text = page(written, result.calibration)
        path.with_suffix(".html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotWritten(f"--out: {path} cannot be written: {error.strerror}") from error
    if found.not_read:
        note = f"Not read: {', '.join(found.not_read)}."
        result = replace(result, notes=(*result.notes, note))
    if kept is not None:
        result = replace(result, notes=(*result.notes, SAME))
    if not asked.known:
        result = replace(result, notes=(*result.notes, ALONE))
    reasons = tuple(obstacles(written, asked))
    print_report(console(), path, written, result, reasons)
    return certificate.certified


def _same_there(path: Path, made: Artefact) -> Artefact | None:
    """The calibration that is there already, if it says the same."""
    try:
        there = read(path)
    except BadArtefact:
        return None  # none, or one that no router takes
    return there if are_same(there, made) else None


def _settings(options: Options, asked: Wanted, found: Found) -> Settings:
    settings = options.settings(asked)
    if found.one_number:
        settings = replace(settings, measures=options.one_measure(asked))
    return settings


def _found(options: Options, asked: Wanted) -> Found:
    """The evidence.

    Raises:
        ValueError: there is none that can be used.
    """
    ladder, lowest = options.tiers(asked), options.lowest_propensity
    if options.labelled is not None:
        names = tier_names(options.names)
        found = from_labelled(options.labelled, ladder, names, lowest=lowest)
    else:
        first_tokens = options.settings(asked).first_k
        found = from_ledger(options.source, options.route, ladder, first_tokens, lowest=lowest)
    found = _younger(found, options.since)
    if not found.records:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in found.left_out.items())
        raise BadEvidence(f"no pair of {options.route} can be used ({reasons})")
    if not any(getattr(record.tiers[-1], options.cost) for record in found.records):
        raise BadEvidence(
            f"--cost: no pair says what {found.ladder[-1].tier} cost in {options.cost}, so that "
            "nothing tells what is cheaper"
        )
    return found


def _younger(found: Found, since: dt.datetime | None) -> Found:
    """What of the evidence is no older; a pair without a time may be."""
    if since is None:
        return found
    times = [moment(record.time) for record in found.records]
    kept = tuple(
        record
        for record, time in zip(found.records, times, strict=True)
        if time is not None and time >= since
    )
    left_out = {**found.left_out, "older than --since": len(times) - len(kept)}
    return replace(found, records=kept, left_out={key: n for key, n in left_out.items() if n})


def _look(asked: Wanted, found: Found, settings: Settings, ladder: tuple[Model, ...]) -> Look:
    """This look, with its number."""
    before = looks_in(file_of(asked.artefact), asked.artefact)
    return numbered(look_of(found.records, ladder, settings, _window(found)), before)


def _keep(asked: Wanted, look: Look) -> None:
    """Counts the look, before anybody sees what it showed.

    Raises:
        NotWritten: it cannot be counted.
    """
    path = file_of(asked.artefact)
    before = looks_in(path, asked.artefact)  # another may have ended meanwhile
    if any(one.asked == look.asked and one.ladder == look.ladder for one in before):
        return
    try:
        keep(path, [*before, look])
    except OSError as error:
        raise NotWritten(
            f"--route: {path} cannot be written, and looks must be counted: {error.strerror}"
        ) from error


def _window(found: Found) -> tuple[str, str]:
    """Times of the oldest and the youngest pair; empty where they carry none."""
    times = [record.time for record in found.records if record.time]
    return min(times, default=""), max(times, default="")


def _artefact(
    options: Options,
    ladder: tuple[Model, ...],
    found: Found,
    result: Result,
    settings: Settings,
) -> Artefact:
    since, until = _window(found)
    return Artefact(
        route=options.route,
        version="unwritten",
        created=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ladder=ladder,
        judgement=result.judgement,
        certificate=result.calibration.certificate,
        bands=result.bands,
        data=Data(
            source=options.source.name,
            since=since,
            until=until,
            pairs=len(found.records),
            left_out=found.left_out,
            cost=settings.cost,
            repeats=result.repeats,
            lowest_propensity=settings.lowest_propensity,
        ),
        watched_loss=result.watched_loss,
        # Labels are no judge of a route: how often that finds answers worse is not known from them.
        spare=result.spare if options.labelled is None or result.watched_loss is not None else None,
    )


def _progress(errors: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
