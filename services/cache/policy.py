"""What the cache decides, as plain functions: keys, leases, records, and what may be stored.

A key says whose request it is and which. Both halves are keyed BLAKE2b hashes over an injective
encoding (every field, each text preceded by its length, exact bytes: no Unicode normalisation, no
folding), so two requests share an entry only if they are equal within one tenant's partition of one
route, and nobody without the hash key can find out from a key what was asked.

The model that answers is no part of the key: it is a mark on the entry, compared with the writers a
caller accepts. Whether a request's sampling makes an answer worth keeping is the router's decision,
which simply does not ask where it is not; here only whole answers pass.

Leaves to others: where entries and leases are kept (`ports`), and protobuf (`wire`).
"""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

MIN_TTL_SECONDS = 1.0
MAX_TTL_SECONDS = 90 * 24 * 3600.0
MAX_WAIT_SECONDS = 60.0
FINISH_REASONS = ("stop", "length")

DIGEST_BYTES = 32
PARTITION_BYTES = 16
TOKEN_BYTES = 16
MARK_BYTES = 8

RECORD_VERSION = b"\x01"
SEAL_BYTES = 16
HEADER_BYTES = len(RECORD_VERSION) + MARK_BYTES + SEAL_BYTES

_LENGTH = Struct("<Q")
_NUMBERS = Struct("<qddq?Q")


def may_wait(own: int, everybody: int, most: int) -> bool:
    """Whether one more lookup may wait for another's answer, among `most` places.

    A tenant takes a place only where it leaves as many free as it has: it stops at half of them if
    it is alone, the next one at half of what is left, and so on.

    Args:
        own: lookups of the same tenant that wait.
        everybody: all that wait, those among them.
        most: places.
    """
    return everybody < most and own <= most - everybody


@dataclass(frozen=True, slots=True)
class Request:
    """The canonical request: everything that can change an answer apart from who gives it.

    Attributes:
        turns: role and content of each, oldest first.
        response_format: kind and text of the wanted shape; empty, free text.
        max_output_tokens: most tokens the answer may have.
        temperature: 0 is greedy.
        top_p: 1 is the whole distribution.
        top_k: 0 is no limit.
        seed: None is any.
        stop: texts that end the answer, in the caller's order.
    """

    turns: Sequence[tuple[str, str]]
    response_format: str = ""
    max_output_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()


class Key(NamedTuple):
    """Where an entry lives: the partition of a tenant's route, and the request in it."""

    partition: bytes
    digest: bytes


class Lease(NamedTuple):
    """The right to compute the answer to one key; `token` cannot be guessed."""

    key: Key
    token: bytes


class Record(NamedTuple):
    """A stored answer: its bytes, and the mark of who wrote it."""

    mark: bytes
    answer: bytes


# Keys


def partition_of(hash_key: bytes, tenant: str, route: str) -> bytes:
    """The partition of a tenant's route."""
    return _hash(hash_key, b"partition", PARTITION_BYTES, _texts((tenant, route)))


def key_of(hash_key: bytes, tenant: str, route: str, request: Request) -> Key:
    """The key of a request, equal exactly for equal tenant, route and request."""
    parts = [
        *_texts((tenant, route, request.response_format)),
        _NUMBERS.pack(
            request.max_output_tokens,
            request.temperature + 0.0,  # -0.0 is 0.0
            request.top_p + 0.0,
            request.top_k,
            request.seed is not None,
            request.seed or 0,
        ),
        _LENGTH.pack(len(request.stop)),
        *_texts(request.stop),
        *_texts(text for turn in request.turns for text in turn),
    ]
    digest = _hash(hash_key, b"request", DIGEST_BYTES, parts)
    return Key(partition_of(hash_key, tenant, route), digest)


def _texts(texts: Iterable[str]) -> list[bytes]:
    parts = []
    for text in texts:
        data = text.encode()
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return parts


def _hash(hash_key: bytes, purpose: bytes, size: int, parts: Iterable[bytes]) -> bytes:
    return blake2b(b"".join(parts), key=hash_key, person=purpose, digest_size=size).digest()


# Leases


def new_lease(key: Key) -> Lease:
    """A lease nobody else can name."""
    return Lease(key, secrets.token_bytes(TOKEN_BYTES))


def lease_text(lease: Lease) -> str:
    """The lease as callers hold it, without the partition: who shows it is known."""
    return urlsafe_b64encode(lease.key.digest + lease.token).decode()


def lease_from(text: str, partition: bytes) -> Lease | None:
    """The lease that a caller of this partition shows; None if the text never was one."""
    try:
        data = urlsafe_b64decode(text)
    except ValueError:
        return None
    if len(data) != DIGEST_BYTES + TOKEN_BYTES:
        return None
    return Lease(Key(partition, data[:DIGEST_BYTES]), data[DIGEST_BYTES:])


# Writers


@lru_cache(maxsize=4096)
def writer_mark(tier: str, model: str, precision: str) -> bytes:
    """Stands for who wrote an entry. The policy version is no part of it."""
    return blake2b(b"".join(_texts((tier, model, precision))), digest_size=MARK_BYTES).digest()


def serves(record: Record, wanted: frozenset[bytes]) -> bool:
    """Whether an entry was written by one of the wanted writers."""
    return record.mark in wanted


# What may be stored


def flaws(*, finish_reason: str, tier: str) -> list[tuple[str, str]]:
    """Why an answer must not be stored, as (field, rule); empty when it may.

    An answer is stored only whole: it ended by itself or at its length, and it says who wrote it.
    It may be empty, where the first thing that the model says is a stop text.
    """
    found = []
    if finish_reason not in FINISH_REASONS:
        found.append(("finish_reason", "must be 'stop' or 'length': only complete answers"))
    if not tier:
        found.append(("writer.tier", "must say which tier wrote the answer"))
    return found


# Records outside this process


def sealed(hash_key: bytes, key: Key, record: Record) -> bytes:
    """The record as bytes for a store that others can reach; bound to its key and partition."""
    seal = _seal(hash_key, key, record)
    return b"".join((RECORD_VERSION, record.mark, seal, record.answer))


def unsealed(hash_key: bytes, key: Key, data: bytes) -> Record | None:
    """The record again; None if it is damaged, foreign, or belongs to another key or partition."""
    if len(data) < HEADER_BYTES or not data.startswith(RECORD_VERSION):
        return None
    mark, rest = data[1 : 1 + MARK_BYTES], data[1 + MARK_BYTES :]
    record = Record(mark, rest[SEAL_BYTES:])
    good = secrets.compare_digest(rest[:SEAL_BYTES], _seal(hash_key, key, record))
    return record if good else None


def _seal(hash_key: bytes, key: Key, record: Record) -> bytes:
    return _hash(
        hash_key, b"seal", SEAL_BYTES, (key.partition, key.digest, record.mark, record.answer)
    )
