"""Parts in processes of their own, for tests that kill them.

By `subprocess`, not by the event loop's own means: those fork with gRPC's threads about, which can
hang both sides.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.integration.router.world import PATIENCE


class Process:
    """``python -m <module>`` and what it prints."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        errors: Path | None = None,
    ) -> None:
        """`errors` takes standard error, which is thrown away without."""
        with (errors or Path(os.devnull)).open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=os.environ | (environ or {}),
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    async def line(self) -> str:
        """The next line that it prints."""
        out = self._process.stdout
        assert out is not None
        return (await asyncio.wait_for(asyncio.to_thread(out.readline), PATIENCE)).decode()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Waits until it has ended by itself; returns its status."""
        return await asyncio.to_thread(self._process.wait, 3 * PATIENCE)

    def kill(self) -> None:
        """Kills it, if it still lives, and waits until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()
