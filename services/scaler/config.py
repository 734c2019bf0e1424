"""What can be set: the scaler's settings from the environment, the pools from `scaling.yaml`.

Both are checked whole at the start. What only shows later, such as a model folder that is removed
or a port that somebody else takes, is a pool's trouble and not an error of this module.
"""

from collections.abc import Callable, Collection
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT, Document, Problem, load_document
from services.common.files import above, resolved
from services.common.plain_files import read_plain
from services.common.rules import spelled
from services.common.server_settings import ServerSettings, check_listen
from services.scaler.policy.sizing.contradictions import contradictions
from services.scaler.policy.sizing.remarks import remarks
from services.scaler.policy.sizing.settings import Budget, Money
from services.scaler.pools import rules
from services.scaler.pools.models import MAX_BYTES, take_models
from services.scaler.pools.pool import HttpUrl, Name, Pool, Restart

MOST_POOLS = 256


def _listed(value: object) -> object:
    """A list as a variable has it, with commas."""
    return [one.strip() for one in value.split(",")] if isinstance(value, str) else value


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
        document.refuse([*rules.wrong_places(scaling.pools), *rules.too_many(scaling.pools)])
        for pool in scaling.pools.values():
            if pool.repository is not None:
                object.__setattr__(pool, "repository", resolved(home / pool.repository))
        document.refuse(
            [
                *rules.shared_ports(scaling.pools),
                *rules.shared_workloads(scaling.pools),
                *rules.long_drains(scaling.pools),
                *(take_models(scaling.pools, read) if models else ()),
                *rules.wrong_cores(scaling.pools, cores),
                *rules.wrong_gpus(scaling.pools, gpus),
                *contradictions(
                    {name: rules.described(pool) for name, pool in scaling.pools.items()},
                    scaling.budgets,
                    scaling.money,
                    queries=queries,
                ),
            ]
        )
        return scaling


Notes = tuple[Problem, ...]


def notes(scaling: Scaling, document: Document[Scaling], *, queries: bool | None = None) -> Notes:
    """What is to be said of pools that would be taken; `queries` is as `Scaling.load` has it."""
    empty = [
        name
        for name, pool in scaling.pools.items()
        if pool.scale is None and document.has(("pools", name, "scale"))
    ]
    described = {name: rules.described(pool) for name, pool in scaling.pools.items()}
    return document.told(remarks(described, empty, queries=queries))
