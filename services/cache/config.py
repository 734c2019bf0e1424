"""What the cache can be told: the variables ``PENNYWEIGHT_CACHE_<FIELD>``."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.server import ServerSettings

PREFIX = "PENNYWEIGHT_CACHE_"
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheSettings(ServerSettings):
    """Settings of the cache.

    Attributes:
        store: ``memory``, or the address of a Redis: ``redis://[user@]host:port[/db]``, or
            ``rediss://…`` for TLS.
        redis_password_file: file with the password of Redis; absent, none.
        redis_ca_file: PEM bundle that signed the certificate of Redis; absent, the system's.
        redis_timeout_seconds: longest that an operation may take; past it, it is a miss.
        redis_connections: most connections to Redis, not counting the one that listens.
        hash_key_file: file with at least 16 bytes that key the hashes; all caches of one Redis
            must have the same. Absent: a published key with Redis, a random one in memory.
        max_bytes: most that entries in memory may take.
        max_entries: most entries in memory.
        max_entry_bytes: largest answer stored, in memory and in Redis.
        lease_seconds: how long a lease lasts; longer than nearly all answers take.
        max_wait_seconds: longest wait for another's answer, whatever callers ask for.
        max_waiters: most lookups that wait at a time; more do not wait.
        max_unanswered: most unanswered operations of one stream; more are not read.
    """

    listen: str = "127.0.0.1:50052"
    metrics_listen: str = "127.0.0.1:9102"
    store: str = "memory"
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = None
    redis_timeout_seconds: Annotated[float, Field(gt=0, le=5)] = 0.05
    redis_connections: Annotated[int, Field(ge=1, le=1000)] = 16
    hash_key_file: Path | None = None
    max_bytes: Annotated[int, Field(ge=1)] = 256 * MIB
    max_entries: Annotated[int, Field(ge=1)] = 100_000
    max_entry_bytes: Annotated[int, Field(ge=1, le=2 * MIB)] = MIB // 4
    lease_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_wait_seconds: Annotated[float, Field(ge=0, le=60)] = 60.0
    max_waiters: Annotated[int, Field(ge=0)] = 10_000
    max_unanswered: Annotated[int, Field(ge=2)] = 1024

    def __post_init__(self) -> None:
        """Refuses stores that do not exist and passwords in plain sight."""
        super().__post_init__()
        if self.store == "memory":
            return
        url = urlsplit(self.store)
        if url.scheme not in {"redis", "rediss"} or not url.hostname:
            raise ValueError("store: must be memory, redis://host:port or rediss://host:port")
        if url.password:
            raise ValueError("store: holds a password; put it into redis_password_file")
        if self.redis_ca_file is not None and url.scheme != "rediss":
            raise ValueError("redis_ca_file: needs a rediss:// store")
