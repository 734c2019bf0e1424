"""What the routes file and the prices file may say; `policy.routes` says what it means.

Each value is checked alone here; `route_rules` checks how they fit each other.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.credentials import TenantName
from services.router.policy.routes import Cancel, Hold, JudgeKind

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
Address = Annotated[str, Field(pattern=r"^$|^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class TierEntry:
    """A tier in the routes file; see `Tier` for what the keys mean."""

    model: Name
    precision: Name
    tokenizer: Path
    max_sequence_tokens: Tokens
    version: Version = ""
    cancel: Cancel = Cancel.ABORT
    first_token_seconds: Seconds = 20.0
    idle_seconds: Seconds = 10.0
    queue_size: Annotated[int, Field(ge=0, le=100_000)] = 256
    queue_seconds: Seconds = 15.0


@dataclass(frozen=True, config=STRICT)
class OutputTokensEntry:
    """Output tokens of a route: when the request does not say, and at most."""

    default: Tokens = 256
    most: Tokens = 1024


@dataclass(frozen=True, config=STRICT)
class DeadlineEntry:
    """Deadlines of a route: when the caller sets none, and the shortest that makes sense."""

    default_seconds: Seconds = 60.0
    shortest_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.005


@dataclass(frozen=True, config=STRICT)
class CacheEntry:
    """How a route uses the cache."""

    use: bool = False
    ttl_seconds: Annotated[float, Field(ge=1, le=90 * 86400)] = 3600.0
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0


@dataclass(frozen=True, config=STRICT)
class JudgeEntry:
    """Who judges a route's paired answers; see `Judging`."""

    kind: JudgeKind = JudgeKind.MATCH
    address: Address = ""
    timeout_seconds: Seconds = 10.0
    least_similarity: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class EvidenceEntry:
    """How a route gathers paired evidence; see `Evidence`."""

    share: Share = 0.05
    share_until_calibrated: Share = 0.2
    keep_text: bool = False
    most_running: Annotated[int, Field(ge=1, le=1000)] = 4
    seconds: Seconds = 60.0
    judge: JudgeEntry = JudgeEntry()


@dataclass(frozen=True, config=STRICT)
class QualityEntry:
    """What a route asks of its answers; see `Quality`.

    Attributes:
        calibration: file of the calibration, absolute or from the folder of the routes file;
            absent, ``calibration/<route>.json``.
    """

    tolerance: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    calibration: Path | None = None
    hold: Hold = Hold.ANSWER
    first_tokens: Annotated[int, Field(ge=1, le=256)] = 8
    run_length: Annotated[float, Field(gt=1, le=1e12)] = 100_000.0
    evidence: EvidenceEntry = EvidenceEntry()


@dataclass(frozen=True, config=STRICT)
class LimitsEntry:
    """What a request of the route may take at most; see `Limits`."""

    micro_usd: Annotated[int, Field(ge=1)] | None = None
    seconds: Seconds | None = None


@dataclass(frozen=True, config=STRICT)
class TrimmingEntry:
    """What is left out of the route's prompts; see `Trimming`."""

    white_space: bool = False
    history_turns: Annotated[int, Field(ge=1, le=10_000)] | None = None
    passages: Annotated[int, Field(ge=1, le=10_000)] | None = None


@dataclass(frozen=True, config=STRICT)
class RouteEntry:
    """A route in the routes file."""

    ladder: Annotated[tuple[Name, ...], Field(min_length=1)]
    fixed_tier: Name | None = None
    quality: QualityEntry | None = None
    description: str = ""
    output_tokens: OutputTokensEntry = OutputTokensEntry()
    deadline: DeadlineEntry = DeadlineEntry()
    cache: CacheEntry = CacheEntry()
    limits: LimitsEntry = LimitsEntry()
    trimming: TrimmingEntry = TrimmingEntry()
    tenants: tuple[TenantName, ...] = ()


@dataclass(frozen=True, config=STRICT)
class RoutesFile:
    """The routes file."""

    tiers: Annotated[dict[Name, TierEntry], Field(min_length=1)]
    routes: Annotated[dict[Name, RouteEntry], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class PriceEntry:
    """Micro-USD per million tokens."""

    prompt: Annotated[int, Field(ge=0)]
    output: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class PricesFile:
    """The prices file."""

    tiers: dict[Name, PriceEntry]
    currency: Literal["micro-usd"] = "micro-usd"
