"""Protobuf messages to what the cache decides about, and back.

The one place that checks requests; what is wrong comes back as `BadRequest` with every violation.
"""

from collections.abc import Callable, Sized
from typing import NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import policy
from services.cache.policy import Key, Lease, Record
from services.cache.ports import Found, Granted, Outcome
from services.common.durations import seconds_of, set_seconds, set_time
from services.common.errors import BadRequest, Violation

MAX_TURNS = 4096
MAX_STOPS = 64
MAX_WRITERS = 1024
"""Far above what a router sends; checked before anything is made of each."""


class Lookup(NamedTuple):
    """What a lookup asks for: whose answers to which request, and a lease where there is none."""

    key: Key
    wanted: frozenset[bytes]
    wait_seconds: float
    lease: bool


class Storing(NamedTuple):
    """Where to store what, and for how long; nowhere if the lease never was one."""

    where: Key | Lease | None
    record: Record
    ttl_seconds: float


class GivingBack(NamedTuple):
    """The lease to end, which is None if it never was one."""

    lease: Lease | None
    unless_awaited: bool


def read_lookup(hash_key: bytes, tenant: str, request: pb.LookupRequest) -> Lookup:
    """What a lookup asks for.

    Raises:
        BadRequest: a field breaks its rule.
    """
    wait_seconds = seconds_of(request.max_wait)
    wrong = _unnamed(tenant, request.route)
    if not request.accepted_writers:
        wrong.append(Violation("accepted_writers", "must name at least one"))
    _bounded("accepted_writers", request.accepted_writers, MAX_WRITERS, wrong)
    if not 0 <= wait_seconds <= policy.MAX_WAIT_SECONDS:
        wrong.append(Violation("max_wait", "must be between 0 and 60 s"))
    key = _read_key(hash_key, tenant, request, wrong)
    if wrong or key is None:
        raise BadRequest.of(*wrong)
    wanted = frozenset(_mark(writer) for writer in request.accepted_writers)
    return Lookup(key, wanted, wait_seconds, request.lease)


def read_store(
    hash_key: bytes, wall: Callable[[], float], tenant: str, request: pb.StoreRequest
) -> Storing:
    """What to store; `wall` gives seconds since 1970.

    Raises:
        BadRequest: a field breaks its rule.
    """
    answer = request.answer
    ttl_seconds = seconds_of(request.ttl)
    wrong = _unnamed(tenant, request.route)
    flaws = policy.flaws(finish_reason=answer.finish_reason, tier=answer.writer.tier)
    wrong.extend(Violation(f"answer.{field}", rule) for field, rule in flaws)
    if not policy.MIN_TTL_SECONDS <= ttl_seconds <= policy.MAX_TTL_SECONDS:
        wrong.append(Violation("ttl", "must be between 1 s and 90 days"))
    where: Key | Lease | None
    if request.lease:
        partition = policy.partition_of(hash_key, tenant, request.route)
        where = policy.lease_from(request.lease, partition)
    else:
        where = _read_key(hash_key, tenant, request, wrong)
    if wrong:
        raise BadRequest.of(*wrong)
    stored = pb.Answer()
    stored.CopyFrom(answer)
    set_time(stored.stored_at, wall())
    record = Record(_mark(answer.writer), stored.SerializeToString())
    return Storing(where, record, ttl_seconds)


def read_abandon(hash_key: bytes, tenant: str, request: pb.AbandonRequest) -> GivingBack:
    """The lease to end.

    Raises:
        BadRequest: a field breaks its rule.
    """
    wrong = _unnamed(tenant, request.route)
    if not request.lease:
        wrong.append(Violation("lease", "is required"))
    if wrong:
        raise BadRequest.of(*wrong)
    partition = policy.partition_of(hash_key, tenant, request.route)
    return GivingBack(policy.lease_from(request.lease, partition), request.unless_awaited)


def write_lookup(outcome: Outcome, response: pb.LookupResponse) -> None:
    """Fills in what was found."""
    if isinstance(outcome, Found):
        response.hit.shared = outcome.shared
        response.hit.answer.MergeFromString(outcome.record.answer)
    elif isinstance(outcome, Granted):
        response.miss.lease = policy.lease_text(outcome.lease)
        set_seconds(response.miss.lease_ttl, outcome.seconds)
    else:
        response.miss.SetInParent()


def _bounded(name: str, values: Sized, most: int, wrong: list[Violation]) -> None:
    if len(values) > most:
        wrong.append(Violation(name, f"at most {most}, got {len(values)}"))


def _unnamed(tenant: str, route: str) -> list[Violation]:
    wrong = []
    if not tenant:
        wrong.append(Violation("tenant", "is required"))
    if not route:
        wrong.append(Violation("route", "is required"))
    return wrong


def _read_key(
    hash_key: bytes,
    tenant: str,
    request: pb.LookupRequest | pb.StoreRequest,
    wrong: list[Violation],
) -> Key | None:
    if not request.HasField("request"):
        wrong.append(Violation("request", "is required"))
        return None
    canonical = request.request
    turns = canonical.turns
    _bounded("request.turns", turns, MAX_TURNS, wrong)
    _bounded("request.stop", canonical.stop, MAX_STOPS, wrong)
    if wrong:
        return None
    if len(UnknownFieldSet(canonical)) or any(len(UnknownFieldSet(turn)) for turn in turns):
        # A newer caller knows of something that changes answers and that no key here would tell.
        wrong.append(Violation("request", "has fields that this version does not know"))
        return None
    return policy.key_of(
        hash_key,
        tenant,
        request.route,
        policy.Request(
            turns=[(turn.role, turn.content) for turn in turns],
            response_format=canonical.response_format,
            max_output_tokens=canonical.max_output_tokens,
            temperature=canonical.temperature,
            top_p=canonical.top_p,
            top_k=canonical.top_k,
            seed=canonical.seed if canonical.HasField("seed") else None,
            stop=canonical.stop,
        ),
    )


def _mark(writer: pb.Writer) -> bytes:
    return policy.writer_mark(writer.tier, writer.model, writer.precision)
