"""Generates the stubs from protos/ and checks the protos: `python -m tools.protos --help`.

`check` finds three kinds of trouble: stubs that are not what the protos generate, protos that break
a rule of style (`tools.proto_style`), and protos that break a promise made to the callers of a
release (`tools.proto_promises`).
"""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tools.proto_promises import broken_promises
from tools.proto_style import style_problems

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
RELEASED = PROTOS / "released"
PACKAGES = ("pennyweight", "externalscaler")
"""Where stubs lie, below the root: in the folders of their protos."""
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(into: Path) -> None:
    """Writes the stubs of every proto below `into`."""
    _protoc(
        f"--python_out={into}",
        f"--grpc_python_out={into}",
        f"--mypy_out={into}",
        f"--mypy_grpc_out={into}",
    )


def describe(protos: Path = PROTOS) -> FileDescriptorSet:
    """All protos of a folder and what they import, with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.binpb"
        _protoc(
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            protos=protos,
        )
        return FileDescriptorSet.FromString(out.read_bytes())


def stale_stubs(root: Path = ROOT) -> Iterator[str]:
    """One sentence for each committed stub that is not what the protos generate."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        wanted = _stubs(fresh)
        kept = {name for folder in PACKAGES for name in _stubs(root / folder, below=root)}
        for name in sorted(wanted | kept):
            if name not in wanted:
                yield f"{name}: no proto generates it; delete it"
            elif not (root / name).exists() or not filecmp.cmp(root / name, fresh / name, False):  # noqa: FBT003
                yield f"{name}: not what the protos generate; run `make protos`"


def check() -> list[str]:
    """Everything wrong with protos and stubs, one sentence each."""
    now = describe()
    problems = [*stale_stubs(), *style_problems(now)]
    for path in sorted(RELEASED.glob("*.binpb")):
        then = FileDescriptorSet.FromString(path.read_bytes())
        problems += [f"{one} (promised in {path.stem})" for one in broken_promises(then, now)]
    return problems


def release() -> Path:
    """Keeps the protos of the version in pyproject.toml as a promise, in place of the last one."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    kept = describe()
    for file in kept.file:
        file.ClearField("source_code_info")
    RELEASED.mkdir(exist_ok=True)
    for old in RELEASED.glob("*.binpb"):
        old.unlink()
    path = RELEASED / f"{version}.binpb"
    path.write_bytes(kept.SerializeToString(deterministic=True))
    return path


def _stubs(folder: Path, below: Path | None = None) -> set[str]:
    return {
        str(path.relative_to(below or folder))
        for path in folder.rglob("*_pb2*")
        if path.name.endswith(SUFFIXES)
    }


def _protoc(*options: str, protos: Path = PROTOS) -> None:
    sources = sorted(str(path) for path in protos.rglob("*.proto"))
    # protoc finds its mypy plugins on PATH, beside this interpreter.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *options, *sources]
    done = subprocess.run(
        command, env={**os.environ, "PATH": search}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="tools.protos", description="Stubs and rules of protos/.")
    parser.add_argument(
        "command",
        choices=("generate", "check", "release"),
        help="generate: write the stubs; check: stubs, style, promises; "
        "release: promise the protos as they are",
    )
    command = parser.parse_args().command
    if command == "generate":
        generate(ROOT)
    elif command == "release":
        print(f"promised: {release().relative_to(ROOT)}")
    elif problems := check():
        raise SystemExit("\n".join(problems))
    else:
        print("protos and stubs are fine")


if __name__ == "__main__":
    main()
