"""The programs on the pages work as they stand there, and docs/calling.md shows all there is."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.client.scripted_router import ESCALATED, Stage, events, summary
from tests.making.pages import BLOCKS, Block

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "calling.md").read_text(encoding="utf-8")
PYTHON = [block for block in BLOCKS if block.language == "python"]


async def run(*command: str, cwd: Path, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def answers(request: object) -> list[object]:
    if isinstance(request, pb.GenerateRequest):
        return list(events("Your card ", "usually reaches you."))
    if isinstance(request, pb.RecordOutcomeRequest):
        return [pb.RecordOutcomeResponse(request_id="r-1")]
    told = summary()
    told.decision.CopyFrom(ESCALATED)
    return [pb.CompleteResponse(text="Your card usually reaches you.", summary=told)]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
async def test_python(block: Block, stage: Stage, tmp_path: Path) -> None:
    stage.router.script = answers
    script = tmp_path / "script.py"
    script.write_text(re.sub(r"(localhost|127\.0\.0\.1):50051", stage.address, block.text))
    code, out = await run(sys.executable, "-W", "error", str(script), cwd=tmp_path)
    assert code == 0, out
    assert out.startswith("Your card usually reaches you.")
    assert stage.router.requests


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example and its packages in a tree of their own."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node is not installed")
    tree = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "protos", tree / "protos")
    folder = tree / "examples" / "node"
    folder.mkdir(parents=True)
    for name in ("package.json", "ask.js"):
        shutil.copy(ROOT / "examples" / "node" / name, folder)
    subprocess.run(
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


async def test_node(node_example: Path, stage: Stage) -> None:
    question = "Where is my card?"
    command = ("node", "ask.js", question)
    code, out = await run(*command, cwd=node_example, PENNYWEIGHT_ADDRESS=stage.address)
    assert (code, out.splitlines()) == (
        0,
        [
            "Your card usually reaches you.",
            "small: The route's policy names this tier.",
            "7 tokens, 3 micro-USD",
        ],
    )
    assert stage.router.requests[0].prompt.messages[0].content == question

    free = summary()
    free.cost.Clear()
    free.usage.Clear()
    stage.router.script = lambda _: [pb.GenerateResponse(finished=pb.Finished(summary=free))]
    code, out = await run(*command, cwd=node_example, PENNYWEIGHT_ADDRESS=stage.address)
    assert (code, out.splitlines()[-1]) == (0, "0 tokens, 0 micro-USD")

    refused = {"PENNYWEIGHT_ADDRESS": stage.address, "PENNYWEIGHT_API_KEY": "wrong"}
    code, out = await run(*command, cwd=node_example, **refused)
    assert (code, out) == (1, "UNAUTHENTICATED: unknown API key\n")


def test_the_page_shows_the_example() -> None:
    shown = [block.text for block in BLOCKS if block.language == "js"]
    assert shown == [(ROOT / "examples" / "node" / "ask.js").read_text(encoding="utf-8")]


def test_the_page_shows_every_kind_of_request() -> None:
    shown = "".join(block.text for block in PYTHON)
    for name in ("Passage(", "OneOf(", "Regex(", "JsonSchema(", "record_outcome(", "candidates"):
        assert name in shown
    for verdict in pb.Verdict.keys()[1:]:
        assert f"| `{verdict.removeprefix('VERDICT_').lower()}` |" in PAGE
    for reason in pb.Reason.keys()[1:]:
        assert f"`{reason.removeprefix('REASON_').lower()}`" in PAGE


def test_the_page_names_every_option_and_error() -> None:
    from pennyweight import Options, PennyweightError

    for name in Options.__annotations__:
        assert f"`{name}`" in PAGE
    for kind in PennyweightError.__subclasses__():
        assert f"`{kind.__name__}`" in PAGE
