"""The router's settings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pennyweight.address import check_target
from services.common.config import STRICT, Name, prefix_of
from services.common.redis_settings import RedisSettings
from services.common.server_settings import ServerSettings

FILE = "file"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RouterSettings(ServerSettings):
    """What can be set of the router, as ``PENNYWEIGHT_ROUTER_<FIELD>``.

    Attributes:
        name: this router's name in load reports and ledger files; stable over its life.
        routes_file: tiers and routes.
        prices_file: prices of the tiers.
        cache_address: host:port of the cache.
        scaler_address: host:port of the scaler.
        service_key_file: the key shown to cache and scaler; absent, the development key.
        peer_tls_ca: PEM bundle that signed the certificates of cache and scaler; absent, plain.
        handle_key_file: secret that signs request handles and names the ledger's questions, shared
            by all routers; absent, a random one, so that handles end with this process and
            questions have no names.
        ledger_folder: where the ledger is written.
        state: where levers and outcomes are shared: ``file`` for one router alone, or the Redis of
            several: ``redis://[user@]host:port[/db]``, or ``rediss://…`` for TLS. While it cannot
            be reached every lever counts as halted.
        state_folder: where ``file`` keeps them.
        redis_password_file: file with the password of that Redis, read anew for each connection;
            absent, none.
        redis_ca_file: PEM bundle that signed the certificate of that Redis; absent, the system's.
        redis_timeout_seconds: longest that one use of that Redis may take.
        policy_folder: where each version of the policies that came in force is kept.
        cache_timeout_seconds: a cache that takes longer counts as away.
        max_prompt_characters: longest prompt taken, all messages together.
        requests_at_once: requests that may be in at once, waiting ones included; half of them for
            one tenant. Their bytes are bounded too, to 256 MB.
        long_prompts_at_once: long prompts that are checked, and others that are tokenised, at
            once, each in a thread and with up to 150 MB for a moment; half of them, but at
            least one, for one tenant.
        unread_seconds: a caller who takes nothing of a streamed answer for so long has its call
            ended.
        unread_bytes: most that is kept of answers that are made and not read, all together; beyond
            it, callers of the tenant for which most is kept have their calls ended.
        probe_engines: ask one small question of each tier whose certainty a route needs, to find
            out whether its engine tells log-probabilities.
        triton_grpc_errors: ask replicas for true gRPC statuses on streams. Triton 2.51 crashes
            with it, so it is off; newer servers may have it on.
    """

    listen: str = "127.0.0.1:50051"
    metrics_listen: str = "127.0.0.1:9101"
    name: Name = "router"
    routes_file: Path = Path("policies/routes.yaml")
    prices_file: Path = Path("policies/prices.yaml")
    cache_address: str = "127.0.0.1:50052"
    scaler_address: str = "127.0.0.1:50053"
    service_key_file: Path | None = None
    peer_tls_ca: Path | None = None
    handle_key_file: Path | None = None
    ledger_folder: Path = Path("state/ledger")
    state: str = FILE
    state_folder: Path = Path("state/router")
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = None
    redis_timeout_seconds: Annotated[float, Field(gt=0, le=1)] = 0.5
    policy_folder: Path = Path("state/policies")
    cache_timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 0.25
    max_prompt_characters: Annotated[int, Field(ge=1)] = 400_000
    requests_at_once: Annotated[int, Field(ge=2)] = 8_192
    long_prompts_at_once: Annotated[int, Field(ge=1, le=64)] = 2
    unread_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    unread_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    probe_engines: bool = True
    triton_grpc_errors: bool = False

    @property
    def redis(self) -> RedisSettings | None:
        """Where Redis is; None if the state is in a folder."""
        if self.state == FILE:
            return None
        return RedisSettings(
            prefix=prefix_of("router"),
            setting="state",
            instead=FILE,
            address=self.state,
            password_file=self.redis_password_file,
            ca_file=self.redis_ca_file,
            timeout_seconds=self.redis_timeout_seconds,
        )

    def __post_init__(self) -> None:
        """Refuses states that do not exist and passwords in plain sight.

        Raises:
            ConfigError: the address of Redis breaks a rule.
        """
        super().__post_init__()
        for name in ("cache_address", "scaler_address"):
            try:
                check_target(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self.redis is not None:
            self.redis.check()
