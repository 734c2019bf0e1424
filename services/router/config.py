"""The router's settings, and the policy files turned into the policies in force."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT, ConfigError, line_in, load_document
from services.common.credentials import TenantName
from services.common.server import ServerSettings
from services.router.policy.routes import CachePolicy, Cancel, Policies, Price, Route, Tier

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RouterSettings(ServerSettings):
    """What the router can be told, as ``PENNYWEIGHT_ROUTER_<FIELD>``.

    Attributes:
        name: this router's name in load reports and ledger files; stable over its life.
        routes_file: tiers and routes.
        prices_file: prices of the tiers.
        cache_address: host:port of the cache.
        scaler_address: host:port of the scaler.
        service_key_file: the key shown to cache and scaler; absent, the development key.
        peer_tls_ca: PEM bundle that signed the certificates of cache and scaler; absent, plain.
        handle_key_file: secret that signs request handles, shared by all routers; absent, a random
            one, so that handles end with this process.
        ledger_folder: where the ledger is written.
        cache_timeout_seconds: a cache that takes longer counts as away.
        max_prompt_characters: longest prompt taken, all messages together.
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
    cache_timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 0.25
    max_prompt_characters: Annotated[int, Field(ge=1)] = 400_000
    triton_grpc_errors: bool = False


@dataclass(frozen=True, config=STRICT)
class TierEntry:
    """A tier in the routes file; see `Tier` for what the keys mean."""

    model: Name
    precision: Name
    tokenizer: Path
    max_sequence_tokens: Tokens
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
class RouteEntry:
    """A route in the routes file."""

    ladder: Annotated[tuple[Name, ...], Field(min_length=1)]
    fixed_tier: Name
    description: str = ""
    output_tokens: OutputTokensEntry = OutputTokensEntry()
    deadline: DeadlineEntry = DeadlineEntry()
    cache: CacheEntry = CacheEntry()
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


def load_policies(routes_file: Path, prices_file: Path) -> Policies:
    """Reads both files and resolves every name in them.

    The version is the beginning of a hash over both files, so equal files are equal versions.

    Raises:
        ConfigError: a file breaks a rule, or a name in it leads nowhere.
    """
    declared = load_document(routes_file, RoutesFile)
    prices = load_document(prices_file, PricesFile).tiers
    problems = [
        f"line {line_in(routes_file, place)}: {'.'.join(place)}: {rule}"
        for place, rule in _dangling(declared, prices, prices_file)
    ]
    if problems:
        raise ConfigError(str(routes_file), problems)
    tiers = {
        name: _tier(name, entry, prices[name], routes_file)
        for name, entry in declared.tiers.items()
    }
    digest = hashlib.sha256(routes_file.read_bytes() + b"\0" + prices_file.read_bytes())
    return Policies(
        version=digest.hexdigest()[:12],
        tiers=tiers,
        routes={name: _route(name, entry, tiers) for name, entry in declared.routes.items()},
    )


def _dangling(
    declared: RoutesFile, prices: dict[str, PriceEntry], prices_file: Path
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Place and rule of each value that does not fit another one."""
    for name in declared.tiers:
        if name not in prices:
            yield ("tiers", name), f"has no price in {prices_file}"
    for name, entry in declared.routes.items():
        ladder = ("routes", name, "ladder")
        for tier in entry.ladder:
            if tier not in declared.tiers:
                yield ladder, f"no such tier, got {tier!r}"
        if len(set(entry.ladder)) != len(entry.ladder):
            yield ladder, f"names a tier twice, got {list(entry.ladder)}"
        if entry.fixed_tier not in entry.ladder:
            yield ("routes", name, "fixed_tier"), f"not in the ladder, got {entry.fixed_tier!r}"
        tokens = entry.output_tokens
        if tokens.default > tokens.most:
            yield (
                ("routes", name, "output_tokens", "default"),
                f"more than most ({tokens.most}), got {tokens.default}",
            )


def _tier(name: str, entry: TierEntry, price: PriceEntry, routes_file: Path) -> Tier:
    folder = entry.tokenizer
    if not folder.is_absolute():  # relative to the tree that holds policies/, wherever we run
        folder = routes_file.resolve().parent.parent / folder
    return Tier(
        name=name,
        model=entry.model,
        precision=entry.precision,
        tokenizer=str(folder),
        max_sequence_tokens=entry.max_sequence_tokens,
        cancel=entry.cancel,
        first_token_seconds=entry.first_token_seconds,
        idle_seconds=entry.idle_seconds,
        queue_size=entry.queue_size,
        queue_seconds=entry.queue_seconds,
        price=Price(price.prompt, price.output),
    )


def _route(name: str, entry: RouteEntry, tiers: dict[str, Tier]) -> Route:
    return Route(
        name=name,
        description=entry.description,
        ladder=tuple(tiers[one] for one in entry.ladder),
        fixed_tier=tiers[entry.fixed_tier],
        default_output_tokens=entry.output_tokens.default,
        max_output_tokens=entry.output_tokens.most,
        default_deadline_seconds=entry.deadline.default_seconds,
        shortest_deadline_seconds=entry.deadline.shortest_seconds,
        cache=CachePolicy(entry.cache.use, entry.cache.ttl_seconds, entry.cache.wait_seconds),
        tenants=frozenset(entry.tenants),
    )
