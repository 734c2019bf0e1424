"""Freed memory, given back to the system.

The C library keeps what a thread frees, in case it asks again: after three long prompts, or a flood
of messages that were never whole, that was hundreds of MB, for good.
"""

import asyncio
import ctypes
import resource
from pathlib import Path

LOOK_SECONDS = 10.0
SPARE_BYTES = 64 << 20
"""So much more than it has ever been is worth a try."""

_libc = ctypes.CDLL(None)
_STATM = Path("/proc/self/statm")


def give_memory_back() -> None:
    """Gives back what is free; takes up to 20 ms, while others run."""
    _libc.malloc_trim(0)


def resident_bytes() -> int:
    """Memory that this process has."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


async def give_memory_back_at_times() -> None:
    """Gives back what is free while this process is large. Runs for ever; the caller owns it."""
    least = resident_bytes()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = resident_bytes()
        least = min(least, now)
        if now > least + SPARE_BYTES:
            await asyncio.to_thread(give_memory_back)
