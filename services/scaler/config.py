"""What can be set: the scaler's settings from the environment, the pools from `scaling.yaml`.

Both are checked whole at the start. What only shows later, such as a model folder that is removed
or a port that somebody else takes, is a pool's trouble and not an error of this module.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from services.common.config import STRICT, Document, load_document
from services.common.config import Problem as PolicyProblem
from services.common.files import above, resolved
from services.common.plain_files import read_plain
from services.common.rules import spelled
from services.common.server import ServerSettings, check_listen
from services.scaler.model_config import FILE, MAX_BYTES, ModelFolderError, parse_model_config
from services.scaler.places import External, Kubernetes, wrong_external
from services.scaler.policy.sizing.contradictions import Described, contradictions
from services.scaler.policy.sizing.remarks import remarks
from services.scaler.policy.sizing.settings import Budget, Money, Scale

Name = Annotated[
    str,
    spelled(
        r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
        "must be at most 32 small letters, digits and '-', which stands at no end",
    ),
]
Model = Annotated[
    str,
    spelled(
        r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
        "must be the name of a folder: at most 63 letters, digits, '_', '.' and '-', the first a "
        "letter or a digit",
    ),
]
Precision = Annotated[
    str,
    spelled(
        r"[a-z0-9][a-z0-9_-]{0,30}",
        "must be at most 31 small letters, digits, '_' and '-', the first a letter or a digit",
    ),
]
MOST_POOLS = 256
MOST_REPLICAS = 4096
"""Of all pools together: a round over them takes some 50 ms, five times a second."""
MOST_SLOTS = 1024
"""Of all pools together."""
MOST_SERVERS = 512
"""Addresses of all external pools together: each is asked every second."""
MOST_RULES = 2048
MOST_SCHEDULES = 512
"""Of all pools together: all may begin or end at one tick."""
MOST_QUERIES = 256
"""Of all pools together: all are asked every ten seconds."""
HttpUrl = spelled(
    r"(https?://[^\s/?#]+(/[^\s?#]*)?)?",
    "must be an http or https URL without a query, such as http://prometheus:9090",
)
Cpu = Annotated[int, Field(ge=0, le=65_535)]
Gpu = Annotated[int, Field(ge=0, le=1023)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _listed(value: object) -> object:
    """A list as a variable has it, with commas."""
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    """Parameters are text in config.pbtxt; YAML's numbers and truth values are welcome too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScalerSettings(ServerSettings):
    """Environment variables `PENNYWEIGHT_SCALER_<FIELD>`.

    Attributes:
        scaling_file: the pools.
        state_folder: records, views and logs of the replicas; the next scaler adopts from it.
        stop_replicas_on_exit: true, SIGTERM drains and ends every replica on this host; false,
            they stay and the next scaler adopts them. They stay in any case when the scaler
            crashes, as do those on Kubernetes and those of others.
        replica_host: address that replicas listen on.
        advertise_host: host under which routers reach them; empty: replica_host.
        tritonserver: server binary of a real installation; absent, the one in the Python
            environment.
        starter: socket of a starter that replicas live with, in a container of its own; absent,
            they live with the container of the scaler.
        kubeconfig: how the Kubernetes API server is reached; absent, as a pod's service account.
        lease: namespace/name of the Lease that one of several scalers holds, which alone changes
            workloads on Kubernetes; empty: this one does.
        identity: what this scaler is called in the Lease; empty: its host's name and process id.
        keda_listen: host:port of KEDA's ExternalScaler; empty: off. Whoever reaches it may ask.
        prometheus: base URL of a Prometheus that answers the queries of scaling.yaml; empty: none
            does, and a file with queries is refused.
        places_allowed: places that a scaling file which is applied over the network may name
            though the one in force does not, with commas: host:port of servers, folders with all
            models below, namespace/kind/name:port of workloads, name=value of parameters, URLs of
            notices; empty: none. Whoever writes the file on this host may name any.
    """

    listen: str = "127.0.0.1:50053"
    metrics_listen: str = "127.0.0.1:9103"
    scaling_file: Path = Path("policies/scaling.yaml")
    state_folder: Path = Path("state/scaler")
    stop_replicas_on_exit: bool = True
    replica_host: str = "127.0.0.1"
    advertise_host: str = ""
    tritonserver: Path | None = None
    starter: Path | None = None
    kubeconfig: Path | None = None
    lease: Annotated[
        str,
        spelled(
            r"(([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?",
            "must be namespace/name, such as pennyweight/scaler",
        ),
    ] = ""
    identity: Annotated[str, Field(max_length=253)] = ""
    keda_listen: str = ""
    prometheus: Annotated[str, HttpUrl] = ""
    places_allowed: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
        BeforeValidator(_listed),
        Field(max_length=256),
    ] = ()

    def __post_init__(self) -> None:
        """Refuses an address that no router could use, or that is open to anybody by accident."""
        super().__post_init__()
        if self.replica_host == "0.0.0.0" and not self.advertise_host:
            raise ValueError("advertise_host must be set when replica_host is 0.0.0.0")
        if self.keda_listen:
            check_listen("keda_listen", self.keda_listen, keys=self.keys_file is not None)


class Capacity(StrEnum):
    """What kind of capacity a replica runs on."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Slot:
    """A place for one replica.

    Attributes:
        grpc_port, metrics_port: 0 takes a free one.
        cpus: cores it may use; none: all.
        gpus: GPUs that it alone sees, by their index on this machine, several for a model that is
            split over them; none: whatever the scaler itself sees.
    """

    grpc_port: Port = 0
    metrics_port: Port = 0
    cpus: Annotated[tuple[Cpu, ...], Field(max_length=4096)] = ()
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=64)] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pool:
    """Identical replicas of one tier's model on one kind of capacity.

    Attributes:
        tier: tier it serves.
        model: folder in `repository`, and the name Triton serves it under.
        precision: precision of its weights.
        repository: folder of model folders; relative paths start at the folder above the one the
            file is in. Pools on slots have one, others none.
        capacity: kind of capacity its replicas run on.
        slots: the places there are on this host. A pool has these, `kubernetes` or `external`.
        kubernetes: the workload whose pods are its replicas.
        external: servers that somebody else runs.
        size: replicas wanted; with `scale` only how many there are at first, by default its least,
            and always within its bounds. An external pool has as many as there are, and neither.
        scale: how the size follows what is asked of the pool; None: it stays as it is.
        usd_per_hour: what one replica costs an hour, in US dollars; 0: not known.
        spot_notice: URL of the machine's metadata that tells when its capacity is taken away;
            empty: nobody tells.
        notice_seconds: how long before its end that is told.
        max_in_flight: most requests a router should have running on a replica.
        parameters: override those of the model's config.pbtxt.
        start_seconds: a replica that is not ready by then is replaced.
        drain_seconds: the longest wait for running requests before a replica is ended.
        config_pbtxt: the model's, as it was when these settings were checked; no key of the file.
            Empty: as it is when a replica starts.
    """

    tier: Name
    model: Model
    precision: Precision
    repository: Path | None = None
    capacity: Capacity = Capacity.ON_DEMAND
    slots: Annotated[tuple[Slot, ...], Field(max_length=1024)] = ()
    kubernetes: Kubernetes | None = None
    external: External | None = None
    size: Annotated[int, Field(ge=0, le=1024)] | None = None
    scale: Scale | None = None
    usd_per_hour: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    spot_notice: Annotated[str, Field(max_length=1000), HttpUrl] = ""
    notice_seconds: Seconds = 30.0
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 64
    parameters: dict[
        Annotated[str, Field(min_length=1, max_length=255)],
        Annotated[str, BeforeValidator(_as_text), Field(max_length=4096)],
    ] = field(default_factory=dict)
    start_seconds: Seconds = 60.0
    drain_seconds: Seconds = 30.0
    config_pbtxt: str = field(default="", init=False)

    def having(self, config_pbtxt: str) -> Self:
        """These settings with such a ``config.pbtxt`` of the model."""
        pool = copy.copy(self)
        object.__setattr__(pool, "config_pbtxt", config_pbtxt)
        return pool

    @property
    def least(self) -> int:
        """Fewest replicas that it may come to have by itself."""
        if self.scale is None:
            return self.size or 0
        return self.scale.min if self.scale.zero is not None else max(self.scale.min, 1)

    @property
    def first(self) -> int:
        """Replicas that it begins with; where `scale` decides, within its bounds."""
        if self.size is None or self.scale is None:
            return self.least
        return min(max(self.size, self.least), self.scale.max)

    @property
    def most(self) -> int:
        """Most replicas that it may come to have by itself, those of its spot pool included."""
        if self.external is not None:
            return len(self.external.addresses)
        if self.scale is None:
            return self.size or 0
        spare = 0 if self.scale.spot is None else self.scale.spot.over_provision
        return spare + max(self.scale.max, *(one.max or 0 for one in self.scale.schedule), 0)

    @field_validator("size")
    @classmethod
    def _fits(cls, size: int | None, info: ValidationInfo) -> int | None:
        slots = info.data.get("slots")
        if slots and size is not None and size > len(slots):
            raise ValueError(f"must not exceed the number of slots, {len(slots)}")
        return size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Restart:
    """When a slot that failed is tried again.

    Attributes:
        first_seconds: wait after the first failure; it doubles with each further one.
        cap_seconds: the longest wait.
        quarantine_after: failures in a row after which other slots are preferred.
    """

    first_seconds: Seconds = 0.5
    cap_seconds: Seconds = 60.0
    quarantine_after: Annotated[int, Field(ge=1, le=1000)] = 5


class Edits(StrEnum):
    """What becomes of changes of the file by hand, past `ApplyPolicy`."""

    RESPECTED = "respected"
    UNDONE = "undone"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scaling:
    """The whole of `scaling.yaml`.

    Attributes:
        pools: by name.
        edits: what becomes of changes by hand while this file is in force.
        restart: when a slot that failed is tried again.
        tick_seconds: how often sizes are decided.
        budgets: what several pools share, by name.
        money: the most that all pools may cost.
    """

    pools: Annotated[dict[Name, Pool], Field(min_length=1, max_length=MOST_POOLS)]
    restart: Restart = field(default_factory=Restart)
    tick_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    edits: Edits = Edits.RESPECTED
    budgets: Annotated[dict[Name, Budget], Field(max_length=64)] = field(default_factory=dict)
    money: Money = field(default_factory=Money)

    @classmethod
    def load(
        cls,
        path: Path,
        cores: Collection[int] | None = None,
        *,
        models: bool = True,
        gpus: Collection[int] | None = None,
        queries: bool | None = None,
    ) -> Self:
        """Reads and checks the file; repositories come back absolute.

        Args:
            path: of the file.
            cores: that there are; None: those of another machine, which nobody knows here.
            models: whether model folders are to be there.
            gpus: the same as `cores` of GPUs, by index.
            queries: whether somebody answers Prometheus queries; None: not known.

        Raises:
            ConfigError: the file or a value in it is wrong, two slots share a port or a GPU, a
                model folder is missing, its ``config.pbtxt`` is none, a slot asks for a core or a
                GPU that is not there, or what is said of sizes contradicts itself.
        """
        document = load_document(path, cls)
        return cls.of(document, path, cores, models=models, gpus=gpus, queries=queries)

    @classmethod
    def of(
        cls,
        document: Document[Self],
        path: Path,
        cores: Collection[int] | None = None,
        *,
        models: bool = True,
        gpus: Collection[int] | None = None,
        queries: bool | None = None,
        read: Callable[[Path], bytes] = lambda path: read_plain(path, MAX_BYTES),
    ) -> Self:
        """As `load`, of a file that was read. `read` reads the models' ``config.pbtxt``."""
        scaling = document.content
        home = above(path)
        document.refuse([*_wrong_places(scaling), *_too_many(scaling)])
        for pool in scaling.pools.values():
            if pool.repository is not None:
                object.__setattr__(pool, "repository", resolved(home / pool.repository))
        document.refuse(
            [
                *_shared_ports(scaling),
                *_shared_workloads(scaling),
                *_long_drains(scaling),
                *(_take_models(scaling, read) if models else ()),
                *_wrong_cores(scaling, cores),
                *_wrong_gpus(scaling, gpus),
                *contradictions(
                    {name: _described(pool) for name, pool in scaling.pools.items()},
                    scaling.budgets,
                    scaling.money,
                    queries=queries,
                ),
            ]
        )
        return scaling


Notes = tuple[PolicyProblem, ...]


def notes(scaling: Scaling, document: Document[Scaling], *, queries: bool | None = None) -> Notes:
    """What is to be said of pools that would be taken; `queries` is as `Scaling.load` has it."""
    empty = [
        name
        for name, pool in scaling.pools.items()
        if pool.scale is None and document.has(("pools", name, "scale"))
    ]
    described = {name: _described(pool) for name, pool in scaling.pools.items()}
    return document.told(remarks(described, empty, queries=queries))


Problem = tuple[tuple[str | int, ...], str]

PLACES = ("slots", "kubernetes", "external")


def _wrong_places(scaling: Scaling) -> Iterator[Problem]:
    """Pools that are in no place or in several, and keys that their place has no use for."""
    for name, pool in scaling.pools.items():
        key = ("pools", name)
        places = [place for place in PLACES if getattr(pool, place)]
        if not places:
            yield key, f"must have one of {', '.join(PLACES)}"
        for place in places[1:]:
            yield (*key, place), f"must not stand beside {places[0]}: a pool has one place"
        for local in ("repository", "parameters"):
            if getattr(pool, local) and places[:1] not in ([], ["slots"]):
                rule = f"must not stand beside {places[0]}: it is of pools on slots alone"
                yield (*key, local), rule
        if pool.external is not None:
            yield from wrong_external(name, pool.external)
            for sized in ("size", "scale"):
                if getattr(pool, sized) is not None:
                    yield (
                        (*key, sized),
                        "must not stand beside external: its servers are as they are",
                    )
        if pool.slots and pool.repository is None:
            yield (*key, "repository"), "is missing: replicas on slots need one"


def _too_many(scaling: Scaling) -> Iterator[Problem]:
    """What each pool may have and all together may not: rounds and ticks go over all of them."""
    pools = scaling.pools.values()
    scales = [pool.scale for pool in pools if pool.scale is not None]
    totals = (
        (MOST_REPLICAS, "replicas (scale.max, size or addresses)", [p.most for p in pools]),
        (MOST_SLOTS, "slots", [len(p.slots) for p in pools]),
        (
            MOST_SERVERS,
            "external addresses",
            [len(p.external.addresses) for p in pools if p.external is not None],
        ),
        (MOST_RULES, "rules", [len(one.rules) for one in scales]),
        (MOST_SCHEDULES, "schedules", [len(one.schedule) for one in scales]),
        (MOST_QUERIES, "queries", [len(one.queries) for one in scales]),
    )
    for most, what, counts in totals:
        if sum(counts) > most:
            rule = f"must have at most {most:,} {what} together"
            yield ("pools",), f"{rule}, got {sum(counts):,}"


def _shared_workloads(scaling: Scaling) -> Iterator[Problem]:
    """Workloads of several pools: each would set its own number of replicas, for ever."""
    taken: dict[tuple[str, str, str], str] = {}
    for name, pool in scaling.pools.items():
        if (place := pool.kubernetes) is None:
            continue
        workload = (place.kind, place.namespace, place.name)
        first = taken.setdefault(workload, name)
        if first != name:
            rule = f"must be a workload of its own, pool {first} has it too"
            yield (
                ("pools", name, "kubernetes", "name"),
                f"{rule}, got {place.kind} {place.namespace}/{place.name}",
            )


def _long_drains(scaling: Scaling) -> Iterator[Problem]:
    """Spot capacity that is gone before its replicas have drained."""
    for name, pool in scaling.pools.items():
        if pool.capacity is Capacity.SPOT and pool.drain_seconds > pool.notice_seconds:
            rule = f"must be at most notice_seconds, {pool.notice_seconds:g}, on spot"
            yield ("pools", name, "drain_seconds"), f"{rule}, got {pool.drain_seconds:g}"


def _shared_ports(scaling: Scaling) -> Iterator[Problem]:
    taken: dict[int, str] = {}
    for name, pool in scaling.pools.items():
        for index, slot in enumerate(pool.slots):
            for key in ("grpc_port", "metrics_port"):
                port = getattr(slot, key)
                place = ("pools", name, "slots", index, key)
                if port and port in taken:
                    yield place, f"must be a port of its own, got {port}, as in {taken[port]}"
                taken.setdefault(port, ".".join(map(str, place)))


def _wrong_cores(scaling: Scaling, cores: Collection[int] | None) -> Iterator[Problem]:
    for name, pool in scaling.pools.items():
        for index, slot in enumerate(pool.slots):
            place = ("pools", name, "slots", index, "cpus")
            if len(set(slot.cpus)) < len(slot.cpus):
                yield place, f"names a core twice, got {list(slot.cpus)}"
            absent = [] if cores is None else sorted(set(slot.cpus) - set(cores))
            if cores is not None and absent:
                rule = f"must be cores that this machine has, {in_ranges(cores)}"
                yield place, f"{rule}, got {in_ranges(absent)}"


def _wrong_gpus(scaling: Scaling, gpus: Collection[int] | None) -> Iterator[Problem]:
    """GPUs that are not there, and those of more than one slot: a model fills the memory of its."""
    taken: dict[int, str] = {}
    for name, pool in scaling.pools.items():
        for index, slot in enumerate(pool.slots):
            place = ("pools", name, "slots", index, "gpus")
            for gpu in slot.gpus:
                if gpu in taken:
                    yield place, f"must be GPUs of its own, got {gpu}, as in {taken[gpu]}"
                taken.setdefault(gpu, ".".join(map(str, place)))
            absent = [] if gpus is None else sorted(set(slot.gpus) - set(gpus))
            if gpus is not None and absent:
                rule = f"must be GPUs that this machine has, {in_ranges(gpus) or 'which are none'}"
                yield place, f"{rule}, got {in_ranges(absent)}"


def _described(pool: Pool) -> Described:
    return Described(
        tier=pool.tier,
        model=(pool.model, pool.precision),
        spot=pool.capacity is Capacity.SPOT,
        room=len(pool.slots) or None,
        size=pool.size if pool.external is None else 0,
        least=pool.least,
        scale=pool.scale,
        usd_per_hour=pool.usd_per_hour,
    )


def strangers(scaling: Scaling, tiers: Collection[tuple[str, str, str]]) -> Iterator[Problem]:
    """Pools that serve no tier, and tiers that no pool serves: what routers make nothing of.

    Args:
        scaling: the pools.
        tiers: name, model and precision of each tier that routers know.
    """
    served = {(pool.tier, pool.model, pool.precision) for pool in scaling.pools.values()}
    by_name = {name: (model, precision) for name, model, precision in tiers}
    for name, pool in scaling.pools.items():
        if pool.tier not in by_name:
            known = ", ".join(sorted(by_name))
            rule = f"must be a tier of the routes ({known}), got {pool.tier}"
            yield ("pools", name, "tier"), rule
            continue
        for key, wanted in zip(("model", "precision"), by_name[pool.tier], strict=True):
            if getattr(pool, key) != wanted:
                yield (
                    ("pools", name, key),
                    f"must be the {key} of tier {pool.tier}, {wanted}, got {getattr(pool, key)}",
                )
    for tier, model, precision in tiers:
        if (tier, model, precision) not in served:
            rule = f"must serve tier {tier} of the routes, {model} {precision}; none does"
            yield ("pools",), rule


def in_ranges(numbers: Collection[int]) -> str:
    """Numbers as text, those in a row as one: ``0-3, 8``."""
    rows: list[list[int]] = []
    for number in sorted(set(numbers)):
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)


def _take_models(scaling: Scaling, read: Callable[[Path], bytes]) -> Iterator[Problem]:
    """Notes what the models' folders say; what is wrong with them."""
    for name, pool in list(scaling.pools.items()):
        if pool.repository is None:
            continue
        folder = pool.repository / pool.model
        try:
            if not pool.repository.is_dir():
                yield ("pools", name, "repository"), f"must be a folder, got {pool.repository}"
                continue
            text = read(folder / FILE).decode("utf-8")
            parse_model_config(text, folder)
        except (FileNotFoundError, NotADirectoryError):
            yield ("pools", name, "model"), f"must be a model folder with {FILE}, got {folder}"
        except (OSError, UnicodeDecodeError) as error:
            yield ("pools", name, "model"), f"must have a {FILE} that can be read: {error}"
        except ModelFolderError as error:
            rule = f"must have a {FILE} that Triton takes, and it {error.reason}"
            yield ("pools", name, "model"), f"{rule}, got {error.path}"
        else:
            scaling.pools[name] = pool.having(text)
