"""The command and the services share an environment, and neither trips over the other's part."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from pennyweight.channel import KEY_VARIABLE, PROXY_VARIABLE
from pennyweight.command.app import app
from services.common.config import from_environment, prefix_of
from services.local.__main__ import app as local
from tools.settings import SERVICES

ROOT = Path(__file__).parents[3]


def variables(command: object) -> Iterator[str]:
    """Of a command and those below it."""
    for option in getattr(command, "params", ()):
        named = option.envvar or ()
        yield from (named,) if isinstance(named, str) else named
    for below in getattr(command, "commands", {}).values():
        yield from variables(below)


COMMAND = frozenset(variables(typer.main.get_command(app)))
LOCAL = frozenset(variables(typer.main.get_command(local)))


def test_the_command_reads_variables() -> None:
    assert {"PENNYWEIGHT_ADDRESS", "PENNYWEIGHT_FLEET_ADDRESS", "PENNYWEIGHT_ROUTE"} <= COMMAND
    assert "PENNYWEIGHT_ROUTE" in LOCAL


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("variable", sorted(COMMAND | LOCAL))
def test_no_variable_of_the_command_stops_the_start_of_a_service(
    variable: str, service: str
) -> None:
    """A service refuses what begins with its prefix and is no setting of its own."""
    prefix = prefix_of(service)
    fields = {field.name for field in dataclasses.fields(SERVICES[service])}
    if variable.startswith(prefix):
        assert variable.removeprefix(prefix).lower() in fields
    else:
        assert from_environment(SERVICES[service], prefix, {variable: "localhost:1"})


def test_the_page_lists_the_variables_of_the_command() -> None:
    page = (ROOT / "docs" / "calling.md").read_text(encoding="utf-8")
    part = page.partition("## The command line\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(PENNYWEIGHT_\w+)` \|", part, re.MULTILINE)
    assert sorted(listed) == sorted({*COMMAND, KEY_VARIABLE, PROXY_VARIABLE})
