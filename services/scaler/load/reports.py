"""Checks a router's load report and takes from it what the scaler keeps."""

import re
from collections.abc import Iterator

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.buckets import BUCKETS
from services.common.durations import nanoseconds_of
from services.common.errors import BadRequest, Violation
from services.common.load_totals import LoadTotals
from services.scaler.load.loads import Report, Run, TierLoad

MAX_TIERS = 64
MAX_REPLICAS = 4096
_COUNTERS = ("arrivals", "prompt_tokens", "output_tokens", "finished")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def checked(request: pb.ReportLoadRequest, router: str) -> Report:
    """The report; `router` is who sent the one before on the same stream, empty for the first.

    Raises:
        BadRequest: the report breaks a rule.
    """
    header, sizes = tuple(_header(request, router)), tuple(_sizes(request))
    if sizes:  # what a report may hold of each is known before it is gone through
        raise BadRequest.of(*header, *sizes)
    violations = (
        *header,
        *(found for index, tier in enumerate(request.tiers) for found in _tier(index, tier)),
        *_repeated(request),
        *(
            Violation(f"replicas[{index}]", "must name a replica; in_flight from 0 up")
            for index, replica in enumerate(request.replicas)
            if not replica.replica or replica.in_flight < 0
        ),
    )
    if violations:
        raise BadRequest.of(*violations)
    return Report(
        tiers={
            tier.tier: TierLoad(tier.waiting, tier.running, tier.max_sequence_tokens)
            for tier in request.tiers
        },
        replicas={replica.replica: replica.in_flight for replica in request.replicas},
        run=_run(request) if request.HasField("started_at") else None,
        leaving=request.leaving,
    )


def _run(request: pb.ReportLoadRequest) -> Run:
    return Run(
        started_at=request.started_at.ToNanoseconds(),
        tiers={
            tier.tier: LoadTotals(
                arrivals=tier.arrivals,
                prompt_tokens=tier.prompt_tokens,
                output_tokens=tier.output_tokens,
                finished=tier.finished,
                first_text=tuple(tier.first_text_counts.counts),
                between_tokens=tuple(tier.between_tokens_counts.counts),
            )
            for tier in request.tiers
        },
    )


def _header(request: pb.ReportLoadRequest, router: str) -> Iterator[Violation]:
    if not _NAME.fullmatch(request.router):
        yield Violation("router", "must be 1 to 128 letters, digits or ._:/-")
    elif router and request.router != router:
        yield Violation("router", f"must stay {router} for the whole stream")
    if nanoseconds_of(request.started_at) is None:
        yield Violation("started_at", "must be a moment in the years 1 to 9999")


def _sizes(request: pb.ReportLoadRequest) -> Iterator[Violation]:
    if len(request.tiers) > MAX_TIERS:
        yield Violation("tiers", f"must be at most {MAX_TIERS}")
    if len(request.replicas) > MAX_REPLICAS:
        yield Violation("replicas", f"must be at most {MAX_REPLICAS}")


def _repeated(request: pb.ReportLoadRequest) -> Iterator[Violation]:
    if len({tier.tier for tier in request.tiers}) < len(request.tiers):
        yield Violation("tiers", "must name each tier once")
    if len({replica.replica for replica in request.replicas}) < len(request.replicas):
        yield Violation("replicas", "must name each replica once")


def _tier(index: int, tier: pb.TierLoad) -> Iterator[Violation]:
    place = f"tiers[{index}]"
    if not tier.tier:
        yield Violation(f"{place}.tier", "must be set")
    for name in ("waiting", "running", "max_sequence_tokens", *_COUNTERS):
        if getattr(tier, name) < 0:
            yield Violation(f"{place}.{name}", "must be 0 or more")
    for name in ("first_text_counts", "between_tokens_counts"):
        counts = getattr(tier, name).counts
        if len(counts) > BUCKETS:
            yield Violation(f"{place}.{name}", f"must be at most {BUCKETS} buckets")
        elif any(count < 0 for count in counts):
            yield Violation(f"{place}.{name}", "each count must be 0 or more")
