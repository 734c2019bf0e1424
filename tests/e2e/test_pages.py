"""The commands on the pages work as they stand there, against the real stack."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pennyweight import Client, PennyweightError
from tests.e2e.running_stack import RunningStack
from tests.making.pages import BLOCKS, ROOT, Block

pytestmark = pytest.mark.timeout(540)

SHELL = {
    tuple(shlex.join(shlex.split(command, comments=True)) for command in block.commands()): block
    for block in BLOCKS
    if block.language == "sh" and not block.is_marked
}
"""The blocks that are run; those whose commands are the same once."""

TREE = (
    *("Makefile", "constraints.txt", "engines", "model_repository", "pennyweight"),
    *("pyproject.toml", "services", "tools"),
)

NOT_CERTIFIED = 3
"""What `calibrate` may end with: how many pairs a busy machine gathers is chance."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """What `make up` starts, on free ports."""
    running = RunningStack(
        tmp_path_factory.mktemp("stack"), sizes={"small-cpu": 1, "large-cpu": 1}, environment={}
    )
    try:
        for name in ("cache", "scaler", "router"):
            running.start(name)
        yield running
    finally:
        running.close()


@pytest.fixture
async def handle(stack: RunningStack) -> str:
    """Of a fresh answer, once every tier can give one."""
    async with Client(stack.address) as client:
        give_up = time.monotonic() + 90
        while True:
            with contextlib.suppress(PennyweightError):
                routes = (await client.list_routes()).routes
                if all(tier.ready_replicas for route in routes for tier in route.ladder):
                    break
            assert time.monotonic() < give_up, "the fleet is not whole"
            await asyncio.sleep(0.1)
        return (await client.complete("support-chat", "Where is my card?")).summary.handle


@pytest.fixture(scope="module")
def folder(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree whose policies may be written to, with the files that the pages speak of."""
    place = tmp_path_factory.mktemp("root")
    for name in (".venv", *TREE):
        (place / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "policies", place / "policies")
    (place / "state").symlink_to(stack.plan.state)
    (table,) = (block.text for block in BLOCKS if block.language == "csv")
    (place / "pairs.csv").write_text(table)
    (place / "question.txt").write_text("My card has not arrived")
    fee = {"type": "object", "properties": {"fee": {"type": "integer"}}, "required": ["fee"]}
    (place / "fee.json").write_text(json.dumps(fee))
    programs = place / "programs"
    programs.mkdir()
    make = programs / "make"  # which would prepare an environment that is being used
    make.write_text(f'#!/bin/sh\nexec {shutil.which("make")} -o .venv/.ready "$@"\n')
    make.chmod(0o755)
    return place


def as_run(block: Block, handle: str) -> str:
    """The block with the handle of a true answer, and without what runs in another terminal."""
    lines = block.text.replace("HANDLE", handle).splitlines()
    return "\n".join(line for line in lines if not re.match(r"make up\b", line))


@pytest.mark.parametrize("block", SHELL.values(), ids=lambda block: block.name)
async def test_a_block(block: Block, stack: RunningStack, handle: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", as_run(block, handle)),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "PATH": f"{folder / 'programs'}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # wherever the command was installed from
            "PENNYWEIGHT_ADDRESS": stack.address,
            "PENNYWEIGHT_FLEET_ADDRESS": stack.plan["scaler"].address,
            "PENNYWEIGHT_API_KEY": "",
        },
    )
    out, _ = await process.communicate()
    if "pennyweight calibrate" in block.text:
        assert process.returncode in (0, NOT_CERTIFIED), out.decode()
        page = (
            "cards.html" if "--alone" in block.text else "policies/calibration/support-trial.html"
        )
        assert (folder / page).exists()
    else:
        assert process.returncode == 0, out.decode()
