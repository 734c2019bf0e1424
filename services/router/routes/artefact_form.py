"""An artefact as plain values, and read from them with every rule checked."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

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
from services.router.routes.artefact import Artefact, Data, Model

KIND = "pennyweight.calibration"
FORM = 1

T = TypeVar("T")


def document_of(artefact: Artefact) -> dict[str, Any]:
    """An artefact as plain values, its version left out."""
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


class BadPart(ValueError):
    """A part of an artefact is missing or not what it must be."""


def artefact_of(document: Mapping[str, Any]) -> Artefact:
    """The artefact that such values say.

    Raises:
        BadPart: one is missing, or not what it must be.
    """
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
        raise BadPart(f"ladder: {lower + 1} tiers do not fit {len(judgement.models)} rungs")
    bands = _part("bands", lambda: _bands(document["bands"]))
    certificate = _part("certificate", lambda: _certificate(document["certificate"]))
    if certificate.thresholds != judgement.thresholds:
        raise BadPart("certificate: is of other thresholds than those in force")
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
        raise BadPart(f"{key}: {error.args[0]} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadPart(f"{key}: {error}") from error


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
