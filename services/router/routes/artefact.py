"""The file that carries a calibration to the routers: JSON, versioned, with a checksum.

Written whole or not at all. Read with every rule checked: a router that takes an artefact knows
that it is complete, unchanged, of this build's features and of the models it serves. Needs nothing
but the standard library.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from services.common.files import write_whole
from services.common.plain_files import read_plain
from services.router.policy.calibration import (
    Certificate,
    Judgement,
    Rung,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Measure
from services.router.policy.difficulty import FEATURES_VERSION, DifficultyModel
from services.router.policy.drift import Bands, Histogram, Rate
from services.router.policy.routes import TierOptions

KIND = "pennyweight.calibration"
FORM = 1
MAX_BYTES = 256 << 20

T = TypeVar("T")


class BadArtefact(ValueError):
    """An artefact that must not be used; the message names the file, what is wrong and where."""


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


def write(path: Path, artefact: Artefact) -> Artefact:
    """Writes an artefact, replacing the file as a whole; returns it with its version filled in."""
    document = _json(artefact)
    document["version"] = f"{artefact.created}-{_checksum({**document, 'version': ''})[:8]}"
    document["checksum"] = _checksum(document)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_whole(path, text.encode())
    return read(path)


def are_same(one: Artefact, other: Artefact) -> bool:
    """Whether they say the same but for when they were made."""
    bare = (_json(replace(each, version="", created="")) for each in (one, other))
    first, second = map(_checksum, bare)
    return first == second


def read(path: Path) -> Artefact:
    """Reads an artefact.

    Raises:
        BadArtefact: it cannot be read, is damaged, or is of another form or of other features.
    """
    try:
        data = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise BadArtefact(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Artefact:
    """Takes an artefact apart that was read from `path`.

    Raises:
        BadArtefact: it is damaged, or is of another form or of other features.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadArtefact(f"{path}: no JSON, perhaps cut off: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise BadArtefact(f"{path}: kind: must be {KIND!r}: this is no calibration")
    _same(path, "form", document.get("form"), FORM)
    _same(path, "features_version", document.get("features_version"), FEATURES_VERSION)
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise BadArtefact(f"{path}: checksum: does not match: the file was changed or damaged")
    try:
        return _artefact(document)
    except _Missing as error:
        raise BadArtefact(f"{path}: {error}") from error


# --- to JSON -----------------------------------------------------------------------------------


def _json(artefact: Artefact) -> dict[str, Any]:
    judgement, bands = artefact.judgement, artefact.bands
    certificate = asdict(artefact.certificate)
    certificate["thresholds"] = _thresholds_json(artefact.certificate.thresholds)
    return {
        "kind": KIND,
        "form": FORM,
        "features_version": FEATURES_VERSION,
        "route": artefact.route,
        "version": "",
        "created": artefact.created,
        "ladder": [asdict(model) for model in artefact.ladder],
        "thresholds": _thresholds_json(judgement.thresholds),
        "first_k": judgement.first_k,
        "models": [
            {"before": _model_json(models.before), "after": _model_json(models.after)}
            for models in judgement.models
        ],
        "certificate": certificate,
        "bands": {
            "escalation": asdict(bands.escalation),
            "gains": [histogram and asdict(histogram) for histogram in bands.gains],
            "certainties": [histogram and asdict(histogram) for histogram in bands.certainties],
        },
        "data": {**asdict(artefact.data), "left_out": dict(artefact.data.left_out)},
        "watched_loss": artefact.watched_loss,
        "spare": artefact.spare,
    }


def _thresholds_json(thresholds: Thresholds) -> dict[str, Any]:
    return {
        "measure": thresholds.measure.value,
        "rungs": [asdict(rung) for rung in thresholds.rungs],
    }


def _model_json(model: DifficultyModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    indexes = sorted(model.weights.keys() | model.rarities.keys())
    return {
        "indexes": indexes,
        "weights": [model.weights.get(index, 0.0) for index in indexes],
        "rarities": [model.rarities.get(index, 0.0) for index in indexes],
        "bias": model.bias,
        "points": [list(point) for point in model.points],
    }


def _checksum(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- from JSON ---------------------------------------------------------------------------------


class _Missing(ValueError):
    """A part of an artefact is missing or not what it must be."""


def _same(path: Path, key: str, got: Any, wanted: int) -> None:
    if got != wanted or isinstance(got, bool):
        raise BadArtefact(f"{path}: {key}: this build reads {wanted}, got {got!r}")


def _artefact(document: Mapping[str, Any]) -> Artefact:
    ladder = _part("ladder", lambda: tuple(Model(**model) for model in document["ladder"]))
    lower = len(ladder) - 1
    judgement = _part(
        "thresholds",
        lambda: Judgement(
            _thresholds(document["thresholds"]),
            tuple(
                TierModels(_model(tier["before"]), _model(tier["after"]))
                for tier in document["models"]
            ),
            int(document["first_k"]),
        ),
    )
    if lower < 1 or len(judgement.models) != lower:
        raise _Missing(f"ladder: {lower + 1} tiers do not fit {len(judgement.models)} rungs")
    bands = _part("bands", lambda: _bands(document["bands"]))
    certificate = _part("certificate", lambda: _certificate(document["certificate"]))
    if certificate.thresholds != judgement.thresholds:
        raise _Missing("certificate: is of other thresholds than those in force")
    return Artefact(
        route=_part("route", lambda: _text(document["route"])),
        version=_part("version", lambda: _text(document["version"])),
        created=_part("created", lambda: _text(document["created"])),
        ladder=ladder,
        judgement=judgement,
        certificate=certificate,
        bands=bands,
        data=_part("data", lambda: Data(**document["data"])),
        watched_loss=_part("watched_loss", lambda: _loss(document["watched_loss"])),
        # Artefacts of before do not have it.
        spare=_part("spare", lambda: _spare(document.get("spare"))),
    )


def _part(key: str, made: Callable[[], T]) -> T:
    try:
        return made()
    except KeyError as error:
        raise _Missing(f"{key}: {error.args[0]} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _Missing(f"{key}: {error}") from error


def _loss(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not -1.0 <= value <= 1.0:
        raise ValueError(f"must be in [-1, 1], got {value!r}")
    return float(value)


def _spare(value: Any) -> float | None:
    found = _loss(value)
    if found is not None and found < 0.0:
        raise ValueError(f"must be in [0, 1], got {value!r}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a text, got {value!r}")
    return value


def _thresholds(part: Mapping[str, Any]) -> Thresholds:
    rungs = tuple(Rung(**rung) for rung in part["rungs"])
    return Thresholds(rungs, Measure(part["measure"]))


def _model(part: Mapping[str, Any] | None) -> DifficultyModel | None:
    if part is None:
        return None
    indexes = [int(index) for index in part["indexes"]]
    weights = zip(indexes, part["weights"], strict=True)
    rarities = zip(indexes, part["rarities"], strict=True)
    return DifficultyModel(
        weights={index: float(value) for index, value in weights},
        rarities={index: float(value) for index, value in rarities if value != 0.0},
        bias=float(part["bias"]),
        points=tuple((float(score), float(gain)) for score, gain in part["points"]),
    )


def _certificate(part: Mapping[str, Any]) -> Certificate:
    rest = {key: value for key, value in part.items() if key != "thresholds"}
    rest["tier_shares"] = tuple(rest["tier_shares"])
    certificate = Certificate(thresholds=_thresholds(part["thresholds"]), **rest)
    for key in ("epsilon", "delta", "bound", "loss", "escalation_rate", "saving"):
        value = getattr(certificate, key)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1.0:
            raise ValueError(f"{key} must be in [-1, 1], got {value!r}")
    level, look = certificate.level, certificate.look
    if level is not None and not (isinstance(level, float) and 0.0 < level <= certificate.delta):
        raise ValueError(f"level must be above 0 and at most delta, got {level!r}")
    if not isinstance(look, int) or look < 1:
        raise ValueError(f"look must be at least 1, got {look!r}")
    if not isinstance(certificate.certified, bool):
        raise TypeError(f"certified must be true or false, got {certificate.certified!r}")
    return certificate


def _bands(part: Mapping[str, Any]) -> Bands:
    return Bands(
        Rate(**part["escalation"]),
        tuple(_histogram(histogram) for histogram in part["gains"]),
        tuple(_histogram(histogram) for histogram in part["certainties"]),
    )


def _histogram(part: Mapping[str, Any] | None) -> Histogram | None:
    if part is None:
        return None
    return Histogram(tuple(part["edges"]), tuple(part["shares"]), part["samples"])
