"""What the routes file asks of a route's calibration, for what the command line leaves out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.config import ConfigError
from services.router.calibrate.evidence import BadEvidence
from services.router.calibrate.process import MEASURES
from services.router.calibrate.watched import Watch, watch_of
from services.router.policy.certainty import Measure
from services.router.policy.routes import Hold, Quality
from services.router.routes.artefact import Artefact, Model
from services.router.routes.calibration import misfits
from services.router.routes.files import read_routes
from services.router.routes.schema import QualityEntry

TOLERANCE = 0.02
"""Of a route that states none."""

DIGITS = 12
"""That tell a chance of error from what floating point makes of it."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a calibration.

    Attributes:
        route: name of the route.
        ladder: what the route's tiers serve now, cheapest first.
        quality: what it asks of its answers; `artefact` is the file that routers look for.
        stated: the route says so itself; False, these are the defaults.
        known: there is a routes file, and the route in it.
    """

    route: str
    ladder: tuple[Model, ...]
    quality: Quality
    stated: bool
    known: bool = True

    @property
    def artefact(self) -> Path:
        """The file that routers look for."""
        return Path(self.quality.artefact)

    @property
    def epsilon(self) -> float:
        """Most quality that may be lost on average."""
        return self.quality.tolerance

    @property
    def delta(self) -> float:
        """Most probability that the certificate is wrong."""
        return round(1.0 - self.quality.confidence, DIGITS)

    @property
    def shadow_share(self) -> float:
        """Share of requests sampled as evidence."""
        return self.quality.evidence.share

    @property
    def first_k(self) -> int:
        """Tokens that the evidence's `first_k` looks at."""
        return self.quality.first_tokens

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those of certainty that the route can use."""
        return (Measure.FIRST_K,) if self.quality.hold is Hold.TOKENS else MEASURES

    @property
    def watch(self) -> Watch | None:
        """The judge that will watch the route, where it looks at the answers alone."""
        judge = self.quality.evidence.judge
        return watch_of(judge.kind, judge.least_similarity)


def wanted(routes_file: Path, route: str) -> Wanted:
    """Reads what the policy asks of a route.

    Raises:
        BadEvidence: the file cannot be used, or has no such route.
    """
    try:
        declared = read_routes(routes_file)
    except ConfigError as error:
        raise BadEvidence(f"--routes-file: {error}") from error
    entry = declared.routes.get(route)
    if entry is None:
        known = ", ".join(sorted(declared.routes))
        raise BadEvidence(f"--route: {routes_file} has no route {route!r}; it has {known}")
    asked = entry.quality or QualityEntry(tolerance=TOLERANCE)
    return Wanted(
        route=route,
        ladder=tuple(Model.of(tier, declared.tiers[tier]) for tier in entry.ladder),
        quality=asked.quality(route, routes_file.parent),
        stated=entry.quality is not None,
    )


def unknown(route: str, folder: Path) -> Wanted:
    """The defaults, for a table without a routes file; `folder` is where the calibration goes."""
    quality = QualityEntry(tolerance=TOLERANCE, calibration=f"{route}.json")
    return Wanted(route, (), quality.quality(route, folder), stated=False, known=False)


def named(found: Sequence[Model], served: Sequence[Model]) -> tuple[Model, ...]:
    """The evidence's models; those that it does not name are the ones that are served now."""
    now = {model.tier: model for model in served}
    return tuple(
        now.get(model.tier, model)
        if not (model.model or model.precision or model.version)
        else model
        for model in found
    )


def obstacles(artefact: Artefact, asked: Wanted) -> Iterator[str]:
    """What will keep routers from using a calibration, a sentence each."""
    if asked.stated:
        yield from misfits(artefact, asked.route, asked.ladder, asked.quality)
    elif asked.known:
        yield f"The routes file states no quality of {asked.route}: defaults were taken."
