"""``pennyweight calibrate`` hands everything to the source tree."""

import asyncio
import sys
from pathlib import Path

from services.router.routes.artefact_file import read
from tests.integration.client.running import pennyweight
from tests.making.paired import lines, record, write_routes

ROOT = Path(__file__).resolve().parents[3]


async def test_options_and_status_pass_through(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(lines(*map(record, range(50))))
    routes = str(write_routes(tmp_path))
    source = ("--labelled", str(tmp_path / "pairs.jsonl"), "--routes-file", routes)
    ended = await pennyweight(
        "calibrate", "--route", "support", *source, "--tolerance=0.03", cwd=ROOT
    )
    assert (ended.code, ended.err) == (3, "")
    assert "more pairs are needed" in " ".join(ended.out.split())
    written = read(tmp_path / "policies" / "calibration" / "support.json")
    assert written.certificate.epsilon == 0.03

    ended = await pennyweight("calibrate", "--route", "suport", *source, cwd=ROOT)
    assert ended.code == 2
    assert "has no route 'suport'; it has support" in ended.err


async def test_help_is_that_of_the_calibration() -> None:
    for asked in ("--help", "-h"):
        ended = await pennyweight("calibrate", asked, cwd=ROOT)
        assert ended.code == 0
        assert ended.out.split()[:3] == ["Usage:", "pennyweight", "calibrate"]
        assert all(f"--{name}" in ended.out for name in ("route", "tolerance", "confidence"))


async def test_outside_the_source_tree_it_says_where_to_run_it(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(only_the_package(tmp_path))}
    ended = await pennyweight("calibrate", "--route", "support", cwd=tmp_path, **environment)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "Calibrating needs Pennyweight's source tree.\nRun it in the folder that holds services/.\n"
    )


def only_the_package(folder: Path) -> Path:
    """A folder that holds what callers install and nothing else of the tree."""
    (folder / "installed").mkdir()
    (folder / "installed" / "pennyweight").symlink_to(ROOT / "pennyweight")
    return folder / "installed"


async def test_a_missing_extra_is_named() -> None:
    without = (
        "import sys; sys.modules['numpy'] = None;"
        "from services.router.calibrate.__main__ import main; sys.exit(main(['--route', 'r']))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", without), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().startswith("Calibrating needs numpy: python -m pip install -e")
