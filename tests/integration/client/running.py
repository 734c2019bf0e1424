"""The command as a process of its own."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Ended:
    code: int
    out: str
    err: str


async def pennyweight(
    *arguments: str, cwd: Path | None = None, given: bytes = b"", **environment: str
) -> Ended:
    """What became of it; `given` is its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pennyweight.command", *arguments),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PENNYWEIGHT_API_KEY": "", **environment},
    )
    out, err = await process.communicate(given)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def rows_of(printed: str) -> list[list[str]]:
    """The cells of every row of the tables in what was printed."""
    lines = (line for line in printed.splitlines() if "│" in line)
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
