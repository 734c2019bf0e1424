"""What the routes file asks of a route's calibration, for what the command line leaves out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.config import ConfigError, load_document
from services.router.calibrate.evidence import BadEvidence
from services.router.calibrate.process import MEASURES
from services.router.calibrate.watched import Watch, watch_of
from services.router.policy.certainty import Measure
from services.router.policy.routes import Hold
from services.router.routes.artefact import Artefact, Model
from services.router.routes.schema import QualityEntry, RoutesFile

TOLERANCE = 0.02
"""Of a route that states none."""

DIGITS = 12
"""That tell a chance of error from what floating point makes of it."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a calibration.

    Attributes:
        ladder: what the route's tiers serve now, cheapest first.
        artefact: the file that routers look for.
        epsilon: most quality that may be lost on average.
        delta: most probability that the certificate is wrong.
        shadow_share: share of requests sampled as evidence.
        first_k: tokens that the evidence's `first_k` looks at.
        measures: of certainty that the route can use.
        watch: the judge that will watch the route, where it looks at the answers alone.
        stated: the route says so itself; False, these are the defaults.
    """

    ladder: tuple[Model, ...]
    artefact: Path
    epsilon: float
    delta: float
    shadow_share: float
    first_k: int
    measures: tuple[Measure, ...]
    watch: Watch | None
    stated: bool


def wanted(routes_file: Path, route: str) -> Wanted:
    """Reads what the policy asks of a route.

    Raises:
        BadEvidence: the file cannot be used, or has no such route.
    """
    try:
        declared = load_document(routes_file, RoutesFile)
    except ConfigError as error:
        raise BadEvidence(f"--routes-file: {error}") from error
    entry = declared.routes.get(route)
    if entry is None:
        known = ", ".join(sorted(declared.routes))
        raise BadEvidence(f"--route: {routes_file} has no route {route!r}; it has {known}")
    for name in entry.ladder:
        if name not in declared.tiers:
            raise BadEvidence(f"--routes-file: {routes_file}: {route}: ladder: no tier {name!r}")
    tiers = [(name, declared.tiers[name]) for name in entry.ladder]
    asked = entry.quality or QualityEntry(tolerance=TOLERANCE)
    return Wanted(
        ladder=tuple(Model(name, one.model, one.precision, one.version) for name, one in tiers),
        artefact=routes_file.parent / (asked.calibration or Path("calibration") / f"{route}.json"),
        epsilon=asked.tolerance,
        delta=round(1.0 - asked.confidence, DIGITS),
        shadow_share=asked.evidence.share,
        first_k=asked.first_tokens,
        measures=(Measure.FIRST_K,) if asked.hold is Hold.TOKENS else MEASURES,
        watch=watch_of(asked.evidence.judge.kind, asked.evidence.judge.least_similarity),
        stated=entry.quality is not None,
    )


def named(found: Sequence[Model], served: Sequence[Model]) -> tuple[Model, ...]:
    """The evidence's models; those that it does not name are the ones that are served now."""
    now = {one.tier: one for one in served}
    return tuple(
        now.get(one.tier, one) if not (one.model or one.precision or one.version) else one
        for one in found
    )


def obstacles(artefact: Artefact, asked: Wanted) -> Iterator[str]:
    """What will keep routers from using a calibration, a sentence each."""
    if not asked.stated:
        yield f"The routes file states no quality of {artefact.route}: defaults were taken."
        return
    ours, served = artefact.ladder, asked.ladder
    if [one.tier for one in ours] != [one.tier for one in served]:
        ladders = [" < ".join(one.tier for one in many) for many in (ours, served)]
        yield f"It is for the ladder {ladders[0]}; the route's is {ladders[1]}."
        return
    for was, now in zip(ours, served, strict=True):
        if was != now:
            yield f"It is for {was}; the routes file now has {now}: gather evidence with that."
    certificate, judgement = artefact.certificate, artefact.judgement
    if not certificate.certified:
        return
    epsilon, delta, first_k = certificate.epsilon, certificate.delta, judgement.first_k
    if epsilon > asked.epsilon:
        yield f"It allows a loss of {epsilon:g}; the route's tolerance is {asked.epsilon:g}."
    if delta > asked.delta:
        yield f"It is wrong with probability {delta:g}; the route allows {asked.delta:g}."
    measure = judgement.thresholds.measure
    if measure not in asked.measures:
        yield f"It compares {measure}; of the route's first tokens there is first_k alone."
    elif measure is Measure.FIRST_K and first_k != asked.first_k:
        yield f"It compares {first_k} tokens; the route's first_tokens is {asked.first_k}."
