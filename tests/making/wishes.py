"""What is wanted of pools, as a test says."""

import asyncio

from services.scaler.ports import Wish


class SaidWishes:
    """A `Wishes` that a test fills."""

    def __init__(self) -> None:
        self.wishes: dict[str, Wish | None] = {}
        self._changed = asyncio.Event()

    def put(self, pool: str, size: int | None, *, active: bool | None = None) -> None:
        """Wants this size; None: it is not known."""
        wish = None
        if size is not None:
            wish = Wish(size, size > 0 if active is None else active, 0.0)
        self.wishes[pool] = wish
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()

    def wish(self, pool: str) -> Wish | None:
        """See `Wishes`."""
        return self.wishes[pool]

    async def changed(self) -> None:
        """See `Wishes`."""
        await self._changed.wait()
