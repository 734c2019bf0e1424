"""What `make dist` builds works in an environment that holds it and what it says it needs."""

import asyncio
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.integration.client.scripted_router import Stage
from tests.making.ledger import attempt, line, request
from tools import dist

# Platforms and Pythons other than this one need what may not be installed here.
HERE = {"extra": ""}


def needed(of: Distribution, extra: str, seen: set[str]) -> Iterator[Distribution]:
    """What it and its extra need, and what that needs, once each."""
    for text in of.requires or ():
        wanted = Requirement(text)
        marker = wanted.marker
        if marker is not None and not (marker.evaluate({"extra": extra}) or marker.evaluate(HERE)):
            continue
        found = distribution(wanted.name)
        for inner in ("", *wanted.extras):
            key = f"{found.name}[{inner}]"
            if key not in seen:
                seen.add(key)
                if not inner:
                    yield found
                yield from needed(found, inner, seen)


def link(found: Distribution, folder: Path) -> None:
    """Makes a package importable from the folder, and nothing else that lies beside it."""
    for file in found.files or ():
        if ".." in file.parts or file.parts[0] == "__pycache__":
            continue
        depth = 1
        while depth < len(file.parts) and _is_namespace(found, file.parts[:depth]):
            depth += 1
        target = folder.joinpath(*file.parts[:depth])
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(str(found.locate_file("/".join(file.parts[:depth]))))


def _is_namespace(found: Distribution, parts: tuple[str, ...]) -> bool:
    place = Path(str(found.locate_file("/".join(parts))))
    return place.is_dir() and place.name == "google"


class Installed:
    """The wheel in an environment of its own, with what it needs for some extras."""

    def __init__(self, python: Path, needs: Path) -> None:
        self.python = python
        self.needs = needs

    async def run(self, *command: str, **environment: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.needs,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self.needs), **environment},
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def command(self, *arguments: str, **environment: str) -> tuple[int, str]:
        return await self.run(str(self.python.parent / "pennyweight"), *arguments, **environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source archive and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "tools.dist", str(folder)],
        cwd=dist.ROOT,
        check=True,
        capture_output=True,
    )
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def python(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel alone."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    made = place / "bin" / "python"
    (wheel,) = (path for path in built if path.suffix == ".whl")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(made), "install", *quiet, str(wheel)],
        check=True,
        capture_output=True,
    )
    return made


def installed(python: Path, folder: Path, *extras: str) -> Installed:
    (metadata,) = python.parents[1].glob("lib/python*/site-packages/pennyweight-*.dist-info")
    seen: set[str] = set()
    for extra in ("", *extras):
        for found in needed(Distribution.at(metadata), extra, seen):
            link(found, folder)
    return Installed(python, folder)


async def test_the_package_alone(python: Path, tmp_path: Path, stage: Stage) -> None:
    alone = installed(python, tmp_path)
    asked = (
        "import asyncio, pennyweight, pathlib\n"
        "from pennyweight.cache.v1 import cache_pb2_grpc\n"
        "from pennyweight.judge.v1 import judge_pb2_grpc\n"
        "from pennyweight.router.v1 import router_pb2_grpc\n"
        "from pennyweight.scaler.v1 import scaler_pb2_grpc\n"
        "async def main():\n"
        f"    async with pennyweight.Client('{stage.address}') as client:\n"
        "        async for event in client.generate('chat', 'Hello'):\n"
        "            print(getattr(event, 'text', ''), end='')\n"
        "asyncio.run(main())\n"
        "print(pathlib.Path(pennyweight.__file__).with_name('py.typed').exists())\n"
    )
    code, out = await alone.run(str(python), "-W", "error", "-c", asked)
    assert (code, out) == (0, "Your card usually reaches you.True\n")

    code, out = await alone.command("--version")
    assert code == 2
    assert out == "The command needs its extra: python -m pip install 'pennyweight[cli]'\n"


async def test_the_command(python: Path, tmp_path: Path, stage: Stage) -> None:
    here = installed(python, tmp_path, "cli")
    code, out = await here.command("--version")
    assert (code, out) == (0, f"pennyweight {version('pennyweight')}\n")
    code, out = await here.command("ask", "Hello", "--address", stage.address)
    assert code == 0, out
    assert out.startswith("Your card usually reaches you.\n")
    code, out = await here.command("routes", "--address", "127.0.0.1:1")
    assert code == 3, out

    (tmp_path / "ledger.jsonl").write_text(line(request("1", attempt())))
    code, out = await here.command("ledger", "--folder", str(tmp_path))
    assert code == 2
    assert "pip install 'pennyweight[ledger]'" in out
    here = installed(python, tmp_path, "cli", "ledger")
    code, out = await here.command("ledger", "--folder", str(tmp_path))
    assert code == 0, out


def test_the_archive_holds_what_a_wheel_is_built_of(built: list[Path]) -> None:
    assert [path.name.partition("-")[0] for path in built] == ["pennyweight"] * 2
    assert [path.suffix for path in built] == [".whl", ".gz"]
