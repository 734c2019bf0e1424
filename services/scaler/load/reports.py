"""Checks a router's load report and takes from it what the scaler keeps."""

import math
import re
from collections.abc import Iterator

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.errors import BadRequest, Violation
from services.scaler.load.loads import Report, TierLoad

MAX_TIERS = 64
MAX_REPLICAS = 4096
MAX_QUANTILES = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def checked(request: pb.ReportLoadRequest, router: str) -> Report:
    """The report; `router` is who sent the one before on the same stream, empty for the first.

    Raises:
        BadRequest: the report breaks a rule.
    """
    violations = (
        *_header(request, router),
        *(one for index, tier in enumerate(request.tiers) for one in _tier(index, tier)),
        *_repeated(request),
        *(
            Violation(f"replicas[{index}]", "must name a replica; in_flight from 0 up")
            for index, replica in enumerate(request.replicas)
            if not replica.replica or replica.in_flight < 0
        ),
    )
    if violations:
        raise BadRequest.of(*violations[:MAX_QUANTILES])
    return Report(
        tiers={one.tier: TierLoad(one.waiting, one.running) for one in request.tiers},
        replicas={one.replica: one.in_flight for one in request.replicas},
    )


def _header(request: pb.ReportLoadRequest, router: str) -> Iterator[Violation]:
    if not _NAME.fullmatch(request.router):
        yield Violation("router", "must be 1 to 128 letters, digits or ._:/-")
    elif router and request.router != router:
        yield Violation("router", f"must stay {router} for the whole stream")
    if len(request.tiers) > MAX_TIERS:
        yield Violation("tiers", f"must be at most {MAX_TIERS}")
    if len(request.replicas) > MAX_REPLICAS:
        yield Violation("replicas", f"must be at most {MAX_REPLICAS}")


def _repeated(request: pb.ReportLoadRequest) -> Iterator[Violation]:
    if len({one.tier for one in request.tiers}) < len(request.tiers):
        yield Violation("tiers", "must name each tier once")
    if len({one.replica for one in request.replicas}) < len(request.replicas):
        yield Violation("replicas", "must name each replica once")


def _tier(index: int, tier: pb.TierLoad) -> Iterator[Violation]:
    place = f"tiers[{index}]"
    if not tier.tier:
        yield Violation(f"{place}.tier", "must be set")
    for name in ("waiting", "running"):
        if getattr(tier, name) < 0:
            yield Violation(f"{place}.{name}", "must be 0 or more")
    rate = tier.output_tokens_per_second
    if not math.isfinite(rate) or rate < 0:
        yield Violation(f"{place}.output_tokens_per_second", "must be a number from 0 up")
    for name in ("first_text", "between_tokens"):
        points = getattr(tier, name)
        if len(points) > MAX_QUANTILES:
            yield Violation(f"{place}.{name}", f"must be at most {MAX_QUANTILES} quantiles")
        elif not all(0 <= one.quantile <= 1 for one in points):
            yield Violation(f"{place}.{name}", "each quantile must be from 0 to 1")
