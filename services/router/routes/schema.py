"""What the routes file and the prices file hold, where that differs from what it means.

The keys and their rules are those of `policy.routes`. Here is what is written otherwise: names
instead of tiers, the file of a calibration instead of what it says. `rules` checks how values fit
each other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from services.common.config import STRICT, Name
from services.router.policy.routes import (
    FilePath,
    Price,
    Quality,
    QualityOptions,
    Route,
    RouteOptions,
    Tier,
    TierOptions,
)


@dataclass(frozen=True, kw_only=True)
class QualityEntry(QualityOptions):
    """What a route asks of its answers.

    Attributes:
        calibration: file of the calibration, absolute or from the folder of the routes file;
            absent, ``calibration/<route>.json``.
    """

    calibration: FilePath | None = None

    def quality(self, route: str, folder: Path) -> Quality:
        """What it means for the route, before its calibration is read.

        Args:
            route: its name.
            folder: of the routes file.
        """
        path = folder / (self.calibration or f"calibration/{route}.json")
        return Quality(**_options(self, QualityOptions), artefact=os.path.normpath(path))


@dataclass(frozen=True, kw_only=True)
class RouteEntry(RouteOptions):
    """A route.

    Attributes:
        ladder: names of its tiers, cheapest first.
        fixed_tier: name of the tier that answers every request.
        quality: what it asks of its answers, where no tier is fixed.
    """

    ladder: Annotated[tuple[Name, ...], Field(min_length=1, max_length=32)]
    fixed_tier: Name | None = None
    quality: QualityEntry | None = None

    def route(self, name: str, tiers: Mapping[str, Tier], folder: Path) -> Route:
        """What it means, before its calibration is read.

        Args:
            name: of the route.
            tiers: every tier, by name.
            folder: of the routes file.
        """
        return Route(
            **_options(self, RouteOptions),
            name=name,
            ladder=tuple(tiers[tier] for tier in self.ladder),
            fixed_tier=tiers[self.fixed_tier] if self.fixed_tier is not None else None,
            quality=self.quality.quality(name, folder) if self.quality is not None else None,
        )


@checked_dataclass(frozen=True, config=STRICT)
class RoutesFile:
    """The routes file."""

    tiers: Annotated[dict[Name, TierOptions], Field(min_length=1)]
    routes: Annotated[dict[Name, RouteEntry], Field(min_length=1)]


@checked_dataclass(frozen=True, config=STRICT)
class PricesFile:
    """The prices file."""

    tiers: dict[Name, Price]
    currency: Literal["micro-usd"] = "micro-usd"


def tier_of(name: str, options: TierOptions, price: Price, root: Path) -> Tier:
    """A tier as its options and its price make it.

    Args:
        name: of the tier.
        options: of the routes file.
        price: of the prices file.
        root: folder that a relative path of a tokenizer starts from.
    """
    kept = _options(options, TierOptions)
    return Tier(**{**kept, "tokenizer": str(root / options.tokenizer)}, name=name, price=price)


def _options(entry: Any, kind: type[Any]) -> dict[str, Any]:
    """The fields that an entry has of such options."""
    return {field.name: getattr(entry, field.name) for field in fields(kind)}
