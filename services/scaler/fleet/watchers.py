"""What those who watch the fleet are told."""

from dataclasses import dataclass
from typing import TypeAlias

from services.scaler import watching
from services.scaler.policy.draining import ReplicaState
from services.scaler.ports import Replica


@dataclass(frozen=True)
class Seen:
    """A replica as watchers see it."""

    replica: Replica
    state: ReplicaState


@dataclass(frozen=True)
class Update:
    """The whole fleet (`full`), or what changed. `revision` grows by one with each change."""

    full: bool
    replicas: tuple[Seen, ...]
    revision: int


Watcher: TypeAlias = watching.Watcher[Update]
Watchers: TypeAlias = watching.Watchers[Update]
