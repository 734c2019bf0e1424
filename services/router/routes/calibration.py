"""Takes a route's calibration into its policy, if it is for what the route is now."""

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.router.policy.calibration import SKIPPED
from services.router.policy.certainty import Measure
from services.router.policy.routes import Calibrated, Hold, Quality, QualityOptions, Tier
from services.router.routes.artefact import Artefact, Model
from services.router.routes.artefact_file import BadArtefact, parse

ROUNDING = 1e-9

REMEDY = "; calibrate again, or remove the file"


def load_calibration(
    route: str, ladder: Sequence[Tier], quality: Quality, data: bytes
) -> Calibrated:
    """The calibration in the bytes of its file.

    Args:
        route: name of the route.
        ladder: its tiers, cheapest first.
        quality: what it asks of its answers; `artefact` is the file.
        data: what the file holds.

    Raises:
        BadArtefact: it must not be used; the message names the file, what is wrong and what to do.
    """
    path = Path(quality.artefact)
    try:
        artefact = parse(data, path)
    except BadArtefact as error:
        raise BadArtefact(f"{error}{REMEDY}") from error
    serving = [Model.of(tier.name, tier) for tier in ladder]
    for misfit in misfits(artefact, route, serving, quality):
        raise BadArtefact(f"{path}: {misfit}{REMEDY}")
    return Calibrated(
        version=artefact.version,
        judgement=artefact.judgement,
        certificate=artefact.certificate,
        bands=artefact.bands,
        until=_seconds(artefact.data.until),
        level=artefact.watched_loss,
        spare=artefact.spare,
    )


def _seconds(time: str) -> float:
    """A time of evidence in seconds since 1970; -inf where it is none, as of a table without."""
    try:
        found = dt.datetime.fromisoformat(time)
    except (ValueError, TypeError):
        return -math.inf
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()


def misfits(
    artefact: Artefact, route: str, serving: Sequence[Model], quality: QualityOptions
) -> Iterator[str]:
    """Why a route must not use a calibration, a sentence each; none where it fits.

    Args:
        artefact: that was read.
        route: name of the route.
        serving: what its tiers serve now, cheapest first.
        quality: what it asks of its answers.
    """
    if artefact.route != route:
        yield f"artefact {artefact.version} is for route {artefact.route}, not {route}"
    if len(artefact.ladder) != len(serving):
        ours, theirs = (" < ".join(m.tier for m in many) for many in (artefact.ladder, serving))
        yield (
            f"artefact {artefact.version} is for {len(artefact.ladder)} tiers, {route} has "
            f"{len(serving)}: {ours}, not {theirs}"
        )
        return
    for was, now in zip(artefact.ladder, serving, strict=True):
        if was != now:
            yield f"artefact {artefact.version} was calibrated for {was}, {route} now has {now}"
    yield from _of_certificate(artefact, quality)


def _of_certificate(artefact: Artefact, quality: QualityOptions) -> Iterator[str]:
    """Where what was certified is not what the route asks for."""
    certificate, judgement = artefact.certificate, artefact.judgement
    rungs, measure = judgement.thresholds.rungs, judgement.thresholds.measure
    if not certificate.certified:
        if any(rung != SKIPPED for rung in rungs):
            yield "certificate: nothing was certified, yet lower tiers may answer"
        return
    if certificate.epsilon > quality.tolerance + ROUNDING:
        yield (
            f"certificate: allows a loss of {certificate.epsilon:g}, "
            f"the route's tolerance is {quality.tolerance:g}"
        )
    if certificate.delta > 1.0 - quality.confidence + ROUNDING:
        yield (
            f"certificate: may be wrong with probability {certificate.delta:g}, "
            f"the route's confidence is {quality.confidence:g}"
        )
    if all(rung.accept_at_certainty is None for rung in rungs):
        return
    if quality.hold is Hold.TOKENS and measure is not Measure.FIRST_K:
        yield (
            f"thresholds: compare {measure}, which needs the whole answer, and the route holds "
            f"back the first tokens; only {Measure.FIRST_K} can be had from them"
        )
    if measure is Measure.FIRST_K and judgement.first_k != quality.first_tokens:
        yield (
            f"thresholds: compare the first {judgement.first_k} tokens, "
            f"the route's first_tokens is {quality.first_tokens}"
        )
