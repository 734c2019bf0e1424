"""Builds what callers install: the source archive, and the wheel from it.

    python -m tools.dist [folder]

Uses the build backend that is installed, so that nothing is downloaded, in a folder of its own, so
that nothing of an older build gets in.
"""

import io
import os
import shutil
import sys
import tarfile
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from setuptools import build_meta

ROOT = Path(__file__).parents[1]
PARTS = ("LICENSE", "README.md", "pennyweight", "pyproject.toml")
"""What a package is made of; services run from the source tree."""


def build(folder: Path) -> list[Path]:
    """Writes both files into a folder. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tree = place / "tree"
        tree.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, tree / part, ignore=ignored)
            else:
                shutil.copy(source, tree / part)
        try:
            os.chdir(tree)  # where a backend is asked
            archive = place / build_meta.build_sdist(str(place))
            with tarfile.open(archive) as packed:
                packed.extractall(place, filter="data")
            os.chdir(place / archive.name.removesuffix(".tar.gz"))
            wheel = place / build_meta.build_wheel(str(place))
        finally:
            os.chdir(before)
        return [Path(shutil.copy(made, folder)) for made in (archive, wheel)]


def main() -> None:
    """Runs the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            made = build(folder)
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise
    print("\n".join(map(str, made)))


if __name__ == "__main__":
    main()
