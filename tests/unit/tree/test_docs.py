"""The pages say what the tree holds."""

import re
from pathlib import Path

import pytest

from tools import settings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_tables_of_settings_are_the_services_own() -> None:
    text = settings.PAGE.read_text()
    assert text == settings.page(text), "run: python -m tools.settings"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_inside_the_tree_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
        assert target in targets
