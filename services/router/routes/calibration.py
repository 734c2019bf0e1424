"""Takes a route's calibration into its policy, if it is for what the route is now."""

from pathlib import Path

from services.router.policy.calibration import SKIPPED
from services.router.policy.certainty import Measure
from services.router.policy.routes import Calibrated, Hold, Quality, Tier
from services.router.routes.artefact import Artefact, BadArtefact, Model, check, parse

ROUNDING = 1e-9

REMEDY = "; calibrate again"


def load_calibration(
    route: str, ladder: tuple[Tier, ...], quality: Quality, data: bytes
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
        serving = [Model(one.name, one.model, one.precision, one.version) for one in ladder]
        check(artefact, route, serving)
        _fits(artefact, quality)
    except BadArtefact as error:
        said = str(error).removeprefix(f"{path}: ").removesuffix(REMEDY)
        raise BadArtefact(f"{path}: {said}{REMEDY}, or remove the file") from error
    return Calibrated(
        version=artefact.version,
        judgement=artefact.judgement,
        certificate=artefact.certificate,
        bands=artefact.bands,
        level=artefact.level,
    )


def _fits(artefact: Artefact, quality: Quality) -> None:
    """Sees that what was certified is what the route asks for.

    Raises:
        BadArtefact: it is not.
    """
    certificate, judgement = artefact.certificate, artefact.judgement
    rungs, measure = judgement.thresholds.rungs, judgement.thresholds.measure
    if not certificate.certified:
        if any(rung != SKIPPED for rung in rungs):
            raise BadArtefact("certificate: nothing was certified, yet lower tiers may answer")
        return
    if certificate.epsilon > quality.tolerance + ROUNDING:
        raise BadArtefact(
            f"certificate: allows a loss of {certificate.epsilon:g}, "
            f"the route's tolerance is {quality.tolerance:g}"
        )
    if certificate.delta > 1.0 - quality.confidence + ROUNDING:
        raise BadArtefact(
            f"certificate: may be wrong with probability {certificate.delta:g}, "
            f"the route's confidence is {quality.confidence:g}"
        )
    if all(rung.accept_at_certainty is None for rung in rungs):
        return
    if quality.hold is Hold.TOKENS and measure is not Measure.FIRST_K:
        raise BadArtefact(
            f"thresholds: compare {measure}, which needs the whole answer, and the route holds "
            f"back the first tokens; only {Measure.FIRST_K} can be had from them"
        )
    if measure is Measure.FIRST_K and judgement.first_k != quality.first_tokens:
        raise BadArtefact(
            f"thresholds: compare the first {judgement.first_k} tokens, "
            f"the route's first_tokens is {quality.first_tokens}"
        )
