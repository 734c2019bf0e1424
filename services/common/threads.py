"""Threads that a service has from its start, so that a lack of them later takes none of its work.

Where the system has none left (`RuntimeError: can't start new thread`), a pool that would grow
fails whoever asks, and may still do later what it said it could not. One that is whole does not
ask for more.
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

MOST_THREADS = 32
SPARE_THREADS = 4
"""Beside one for each core: what waits for a disk needs none."""


def whole_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool all of whose threads run.

    Raises:
        RuntimeError: the system has not so many.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    together = threading.Barrier(threads)
    try:
        waiting = [pool.submit(together.wait) for _ in range(threads)]
    except RuntimeError:
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    for one in waiting:
        one.result()
    return pool


def take_threads() -> None:
    """Gives the running loop the threads that `asyncio.to_thread` uses, all of them now.

    Raises:
        RuntimeError: the system has not so many.
    """
    threads = min(MOST_THREADS, (os.cpu_count() or 1) + SPARE_THREADS)
    asyncio.get_running_loop().set_default_executor(whole_pool(threads, "beside"))
