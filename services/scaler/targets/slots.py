"""What the local target needs from whatever runs one replica on one numbered slot."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.scaler.pools.pool import Pool, Slot
from services.scaler.targets.records import SlotReplica


class StartFailed(Exception):
    """A replica could not be started; the message says why, in words an SRE can act on."""


class EndFailed(Exception):
    """A replica could not be ended. It is still on record; `SlotHost.end` is to be called again."""


class StartHindered(StartFailed):
    """Something else is in the way of a replica: it says nothing of its settings."""


@dataclass(frozen=True)
class Adopted:
    """A replica that an earlier scaler left.

    `ready`: it was ready when last looked at. `draining`: it was told to finish what it has.
    `fault`: why it cannot serve any more, if so; it is
    still to be ended.
    """

    replica: SlotReplica
    ready: bool
    fault: str = ""
    draining: bool = False


OnDeath = Callable[[str, str], None]
"""Called in the event loop with a replica's id and what died, the moment it does."""


class SlotHost(Protocol):
    """Starts, asks and ends single replicas. Leaves all deciding to the target."""

    async def adopt(self, on_death: OnDeath) -> list[Adopted]:
        """Takes over what an earlier scaler left.

        Called once, before anything else; deaths after it returns are reported to `on_death`.
        """

    async def start(self, replica_id: str, name: str, pool: Pool, slot: int) -> SlotReplica:
        """Starts a replica of the pool `name` on a slot.

        Raises:
            StartFailed: it cannot be started. Nothing of it is left.
            StartHindered: nor could one with other settings there.
            OSError: nor can we do much else now; something of it may be left.
        """

    async def is_ready(self, replica_id: str) -> bool:
        """Whether it says that it takes requests. False also when it does not answer in time."""

    def exits(self, replica_id: str) -> bool:
        """Whether it said, when it was asked last, that it exits, or nobody was there to say so."""

    def note_ready(self, replica_id: str) -> bool:
        """Notes that it is ready for the first time; all of it is watched from now on.

        False: a part of it is gone already, and its death has been reported.
        """

    def note_draining(self, replica_id: str) -> None:
        """Notes on record that it finishes what it has and goes then, whoever sees to that.

        Raises:
            OSError: it cannot be written down now.
        """

    async def too_long(self, replica_id: str, tokens: int) -> str | None:
        """Why a request of so many tokens, prompt and answer together, is too long for it.

        Empty: it is not, or it cannot be asked. None: it did not answer in time.
        """

    async def running_requests(self, replica_id: str) -> int | None:
        """Requests it runs by its own count. None: it does not say."""

    async def end(self, replica_id: str, *, gently: bool) -> None:
        """Ends it and removes all it left. `gently`: it is whole and may close down itself.

        Raises:
            EndFailed: somebody of it lives on.
            OSError: it cannot be found out, or not be removed. Either way it is to be called again.
        """

    async def close(self) -> None:
        """Lets go of all replicas without ending any."""


def fingerprint(pool: Pool, slot: Slot) -> str:
    """Stands for the settings that a running replica cannot change."""
    settings: list[object] = [
        str(pool.repository),
        pool.model,
        pool.precision,
        sorted(pool.parameters.items()),
        pool.config_pbtxt,
        [slot.grpc_port, slot.metrics_port, slot.cpus],
    ]
    if slot.gpus:
        settings.append(slot.gpus)
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
