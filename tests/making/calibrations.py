"""Artefacts of calibrations as files, for policies that name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from services.router.policy.routes import Calibrated
from services.router.routes.artefact import Artefact, Data, Model
from services.router.routes.artefact_file import write
from tests.making.policies import calibrated


def write_calibration(
    path: Path,
    route: str,
    tiers: Sequence[str],
    *rungs: Rung,
    measure: Measure = Measure.MEAN,
    calibration: Calibrated | None = None,
    **changes: Any,
) -> Artefact:
    """Writes the calibration of a route whose tiers serve models of their own names in int8."""
    made = calibration or calibrated(*rungs, measure=measure)
    artefact = Artefact(
        **{
            "route": route,
            "version": "unwritten",
            "created": "2026-11-01T00:00:00Z",
            "ladder": tuple(Model(tier, tier, "int8") for tier in tiers),
            "judgement": made.judgement,
            "certificate": made.certificate,
            "bands": made.bands,
            "data": Data("test", "", "", 3000, {}, "micro_usd"),
            **changes,
        }
    )
    return write(path, artefact)
