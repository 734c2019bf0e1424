"""The Dockerfile's images hold what runs in them, and their builder is given it."""

import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[3]
OURS = ("services", "pennyweight", "engines", "externalscaler")
IMAGES = {
    "router": "services.router.__main__",
    "cache": "services.cache.__main__",
    "scaler": "services.scaler.__main__",
    "operator": "pennyweight.command.__main__",
}


def stages() -> dict[str, list[str]]:
    """What each stage copies from the tree, by the stage's name."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if match := re.match(r"FROM \S+ AS (\S+)", line):
            copied = found.setdefault(match[1], [])
        elif line.startswith("COPY ") and "--from=" not in line:
            copied += line.split()[1:-1]
    return found


@pytest.mark.parametrize(
    ("stage", "source"),
    [(stage, source) for stage, copied in stages().items() for source in copied],
)
def test_what_is_copied_goes_to_the_builder(stage: str, source: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert (ROOT / source).exists()
    assert any(f"{source}/".startswith(f"{one}/") for one in let_in), f"{stage} copies {source}"


@pytest.mark.parametrize("stage", IMAGES)
def test_an_image_has_every_package_of_ours_that_it_imports(stage: str) -> None:
    graph = grimp.build_graph(*OURS)
    imported = graph.find_upstream_modules(IMAGES[stage]) | {IMAGES[stage]}
    assert {name.partition(".")[0] for name in imported} <= {*stages()[stage]}
