"""Every block of code on a page is run, or read, or says visibly why it is not."""

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import TypeAdapter

from pennyweight.command.app import app
from services.common.config import parse_document
from services.common.credentials import KeyFile
from services.scaler.policy.sizing.settings import Behavior, Budget, Money, Scale, Schedule
from services.scaler.pools.places import External, Kubernetes
from tests.making.pages import BLOCKS, ROOT, Block
from tests.unit.ledger import test_page as ledger_page

COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def name(block: Block) -> str:
    return block.name


def test_the_kinds_of_blocks() -> None:
    """Whoever brings another kind says here who reads it.

    python: tests/integration/client/test_calling_page.py runs each. sh: tests/e2e/test_pages.py
    runs each that is not marked. sql, and the text below it: tests/unit/ledger/test_page.py. js: it
    is the example, which test_calling_page.py runs. csv: tests/unit/router/calibrate/
    test_labelled.py calibrates with it. json and yaml: below. text: what something printed.
    """
    known = {"python", "sh", "sql setup", "sql", "js", "json", "yaml", "csv", "text"}
    assert {block.language for block in BLOCKS} <= known
    assert {block.page for block in of("sql", "sql setup")} == {"docs/ledger.md"}
    assert len(of("sql")) == len(ledger_page.QUERIES)
    assert {block.page for block in of("js")} == {"docs/calling.md"}
    assert not [block.name for block in of("python", "js", "sql", "json") if block.is_marked]


def test_some_blocks_of_the_shell_are_run() -> None:
    assert len([block for block in of("sh") if not block.is_marked]) >= 6


@pytest.mark.parametrize("block", of("json"), ids=name)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", of("yaml"), ids=name)
def test_yaml_is_yaml(block: Block) -> None:
    told = yaml.safe_load(block.text)
    assert told
    if "keys" in told:
        assert parse_document(block.text, KeyFile, source=block.name).content.keys


SCALING: Mapping[str, Any] = {
    "scale": Scale,
    "behavior": Behavior,
    "schedule": tuple[Schedule, ...],
    "budgets": dict[str, Budget],
    "money": Money,
    "external": External,
    "kubernetes": Kubernetes,
}


@pytest.mark.parametrize(
    "block", [block for block in of("yaml") if block.page == "docs/scaling.md"], ids=name
)
def test_a_part_of_a_scaling_file_has_its_keys_and_values(block: Block) -> None:
    told = yaml.safe_load(block.text)
    parts = list(told.pop("pools", {}).values())
    assert all(parts)
    found = [
        (key, value) for part in (told, *parts) for key, value in part.items() if key in SCALING
    ]
    assert found
    assert told.keys() <= SCALING.keys()
    for key, value in found:
        TypeAdapter(SCALING[key]).validate_python(value)


@pytest.mark.parametrize("block", of("sh"), ids=name)
def test_the_shell_reads_it(block: Block) -> None:
    read = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, check=False)
    assert (read.returncode, read.stderr) == (0, b"")


@pytest.mark.parametrize("block", of("sh"), ids=name)
def test_every_command_and_option_exists(block: Block) -> None:
    for command in block.commands():
        first, *rest = shlex.split(command, comments=True)
        while rest and "=" in first:  # a variable before the command
            first, *rest = rest
        if first == "make":
            assert {word for word in rest if "=" not in word} <= TARGETS, command
        elif Path(first).name == "pennyweight":
            _parse(COMMAND, [word for word in rest if word != "|"])


def _parse(command: Any, words: list[str]) -> None:
    """Reads the options as the command would; raises at what it does not know."""
    words = words[: words.index("<")] if "<" in words else words
    context = command.make_context("pennyweight", list(words))
    if hasattr(command, "resolve_command"):  # a group
        left = [*context._protected_args, *context.args]
        _, inner, left = command.resolve_command(context, left)
        _parse(inner, left)


@pytest.mark.parametrize("words", [["roots"], ["ask", "x", "--prioritet", "batch"], ["lever", "l"]])
def test_what_does_not_exist_is_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match="No such"):
        _parse(COMMAND, words)


@pytest.mark.parametrize(
    ("text", "marked"),
    [("# needs a GPU\nx", True), ("x\n# takes an hour\n", True), ("x  # needs y", False)],
)
def test_a_mark_is_a_line_of_its_own(text: str, *, marked: bool) -> None:
    assert Block("a", 1, "sh", text).is_marked is marked


def test_commands_go_on_over_lines() -> None:
    block = Block("a", 1, "sh", "# needs x\na -b \\\n  c  # why\nd '{\n}' e\n\nf")
    commands = [shlex.split(command, comments=True) for command in block.commands()]
    assert commands == [["a", "-b", "c"], ["d", "{\n}", "e"], ["f"]]
