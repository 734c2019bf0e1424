"""Settings of the cache: the variables ``PENNYWEIGHT_CACHE_<FIELD>``."""

import secrets
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT, ConfigError, prefix_of
from services.common.plain_files import MAX_SECRET_BYTES, read_plain
from services.common.redis_settings import RedisSettings
from services.common.server_settings import ServerSettings

MIB = 1024 * 1024
MIN_HASH_KEY = 16
MAX_HASH_KEY = 64  # BLAKE2b takes no more
DEVELOPMENT_HASH_KEY = b"pennyweight-development"
MEMORY = "memory"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheSettings(ServerSettings):
    """Settings of the cache.

    Attributes:
        store: ``memory``, or the address of a Redis: ``redis://[user@]host:port[/db]``, or
            ``rediss://…`` for TLS.
        redis_password_file: file with the password of Redis, read anew for each connection; absent,
            none.
        redis_ca_file: PEM bundle that signed the certificate of Redis; absent, the system's.
        redis_timeout_seconds: longest that an operation may take; past it, it is a miss.
        redis_connections: most connections to Redis, not counting the one that listens.
        hash_key_file: file with 16 to 64 bytes that key the hashes; all caches of one Redis
            must have the same, and nobody else may know it. Absent: a random key
            in memory, a published one with a Redis on loopback; any other Redis needs one.
        max_bytes: most that entries in memory may take.
        max_entries: most entries in memory.
        max_entry_bytes: largest answer stored, in memory and in Redis.
        lease_seconds: how long a lease lasts; longer than nearly all answers take.
        max_wait_seconds: longest wait for another's answer, whatever callers ask for.
        max_waiters: most lookups that wait at a time; more do not wait, nor do those of a tenant
            that would leave fewer places free than it has.
        max_unanswered: most unanswered operations of one stream; more are not read.
    """

    listen: str = "127.0.0.1:50052"
    metrics_listen: str = "127.0.0.1:9102"
    store: str = MEMORY
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

    @property
    def redis(self) -> RedisSettings | None:
        """Where Redis is; None if entries live in memory."""
        if self.store == MEMORY:
            return None
        return RedisSettings(
            prefix=prefix_of("cache"),
            setting="store",
            instead=MEMORY,
            address=self.store,
            password_file=self.redis_password_file,
            ca_file=self.redis_ca_file,
            timeout_seconds=self.redis_timeout_seconds,
        )

    def hash_key(self) -> bytes:
        """What keys the hashes.

        Raises:
            ConfigError: the file cannot be read, or holds too little or too much.
        """
        if self.hash_key_file is None:
            return DEVELOPMENT_HASH_KEY if self.redis else secrets.token_bytes(MAX_HASH_KEY)
        try:
            key = read_plain(self.hash_key_file, MAX_SECRET_BYTES).strip()
        except OSError as error:
            problem = f"hash_key_file: cannot be read: {error}"
            raise ConfigError(str(self.hash_key_file), [problem]) from error
        if not MIN_HASH_KEY <= len(key) <= MAX_HASH_KEY:
            rule = f"must hold {MIN_HASH_KEY} to {MAX_HASH_KEY} bytes, holds {len(key)}"
            raise ConfigError(str(self.hash_key_file), [f"hash_key_file: {rule}"])
        return key

    def __post_init__(self) -> None:
        """Refuses stores that do not exist and passwords in plain sight.

        Raises:
            ConfigError: the address of Redis breaks a rule, or lacks a key of our own.
        """
        super().__post_init__()
        if self.redis is None:
            return
        self.redis.check()
        if self.hash_key_file is None and not self.redis.is_here:
            rule = "must be set, as the Redis is not on loopback and the key of none is published"
            variable = f"{prefix_of('cache')}HASH_KEY_FILE"
            raise ConfigError("environment", [f"{variable}: {rule}, got nothing"])
