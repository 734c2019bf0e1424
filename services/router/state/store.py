"""What routers share: the records of levers, and small values kept for a while.

One router alone keeps them in a folder (`file`), several in Redis (`redis`). Neither knows what a
record says.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from services.router.config import RouterSettings
from services.router.ports import Keeper
from services.router.state.file import FileState
from services.router.state.redis import RedisState

CONNECTIONS = 8
LEVER_CONNECTIONS = 4
"""To Redis, for levers alone: nothing that tenants cause is before them."""


class SharedState(Keeper, Protocol):
    """One truth for all routers. What raises `Unavailable` may have happened all the same."""

    async def changes(self) -> str:
        """A text that is another one after any record has changed; cheap to ask for.

        Raises:
            Unavailable: the state cannot be reached.
        """

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """What `changes` says at this moment, and every record by the name it was put under.

        Raises:
            Unavailable: as above.
        """

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """Puts a record in the place of the one that was there before; None where none was.

        Returns:
            whether it did, and the record that is there now; empty where there is none.

        Raises:
            Unavailable: as above.
        """


@asynccontextmanager
async def open_state(
    settings: RouterSettings, check: Callable[[bytes], object]
) -> AsyncIterator[SharedState]:
    """The state that the settings name.

    Args:
        settings: of the router.
        check: raises `ValueError` for a record that is damaged; a folder that holds one stops the
            start, while Redis hands it out.

    Raises:
        ConfigError: the folder or a file of the settings cannot be used, or is damaged. That Redis
            is away is no such error: it may come.
    """
    state: FileState | RedisState
    if settings.redis is None:
        state = FileState(settings.state_folder, check)
    else:
        redis = settings.redis
        state = RedisState(redis.link(CONNECTIONS), redis.link(LEVER_CONNECTIONS))
    try:
        yield state
    finally:
        await state.close()
