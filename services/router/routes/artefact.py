"""A calibration of one route, as it comes to the routers: what it says and what it is for."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.router.policy.calibration import Certificate, Judgement
from services.router.policy.drift import Bands
from services.router.policy.routes import TierOptions


@dataclass(frozen=True, slots=True)
class Model:
    """What one tier served when the evidence was gathered.

    Attributes:
        tier: its name on the ladder.
        model: of its replicas.
        precision: of its weights.
        version: of its weights, as the policy names it; empty where it names none.
    """

    tier: str
    model: str
    precision: str
    version: str = ""

    @staticmethod
    def of(tier: str, options: TierOptions) -> "Model":
        """What a tier serves now."""
        return Model(tier, options.model, options.precision, options.version)

    def __str__(self) -> str:
        """As messages name it."""
        version = f"version {self.version}" if self.version else ""
        served = " ".join(filter(None, (self.model, self.precision, version)))
        return f"{self.tier} ({served})" if served else self.tier


@dataclass(frozen=True, slots=True)
class Data:
    """What the artefact was made from.

    Attributes:
        source: the ledger folder's or labelled file's name.
        since: time of the oldest pair, RFC 3339; empty where pairs carry none.
        until: of the youngest.
        pairs: used.
        left_out: pairs that could not be used, by reason.
        cost: unit of costs: `micro_usd` or `engine_ms`.
        repeats: pairs among them of questions that an older one had asked already.
        lowest_propensity: that was declared; None where all pairs were drawn alike.
    """

    source: str
    since: str
    until: str
    pairs: int
    left_out: Mapping[str, int]
    cost: str
    repeats: int = 0
    lowest_propensity: float | None = None


@dataclass(frozen=True)
class Artefact:
    """A calibration of one route.

    Attributes:
        route: it is for.
        version: names this calibration in decisions: the time it was made and its checksum's
            beginning.
        created: RFC 3339.
        ladder: the models it is for, cheapest first.
        judgement: what decides.
        certificate: what was proved.
        bands: what traffic looked like.
        data: what it was made from.
        watched_loss: mean paired loss in the terms of the judge that will watch the route, where
            that is another one than judged the evidence; None where it is not known.
        spare: share of worse answers minus mean loss, in the same judge's terms; None where it is
            not known.
    """

    route: str
    version: str
    created: str
    ladder: tuple[Model, ...]
    judgement: Judgement
    certificate: Certificate
    bands: Bands
    data: Data
    watched_loss: float | None = None
    spare: float | None = None

    @property
    def level(self) -> float:
        """Mean paired loss at calibration, as the judge that will watch the route finds it."""
        return self.certificate.loss if self.watched_loss is None else self.watched_loss
