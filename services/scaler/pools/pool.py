"""A pool as `scaling.yaml` describes it: its keys, their kinds and what follows from them alone."""

import copy
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.rules import spelled
from services.scaler.policy.sizing.settings import Scale
from services.scaler.pools.places import External, Kubernetes

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
HttpUrl = spelled(
    r"(https?://[^\s/?#]+(/[^\s?#]*)?)?",
    "must be an http or https URL without a query, such as http://prometheus:9090",
)
Cpu = Annotated[int, Field(ge=0, le=65_535)]
Gpu = Annotated[int, Field(ge=0, le=1023)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _as_text(value: object) -> object:
    """Parameters are text in config.pbtxt; YAML's numbers and truth values are welcome too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


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
