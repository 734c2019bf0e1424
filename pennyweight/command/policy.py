"""``policy check``: whether policy files would be taken, without anything that runs.

The rules are the services', so the checking is done by the source tree; here is only who is asked
and what is shown.
"""

import json
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pennyweight.answers import PolicyProblem
from pennyweight.command.ending import FAILED, USAGE, end
from pennyweight.command.options import Json
from pennyweight.command.refused import problem_lines
from pennyweight.command.show import console, plain
from pennyweight.command.tree import in_the_tree

policy = typer.Typer(help="Check policy files before they are put in force.", no_args_is_help=True)


class Kind(StrEnum):
    """What a policy file holds."""

    ROUTES = "routes"
    PRICES = "prices"
    SCALING = "scaling"


_KEYS = (("pools", Kind.SCALING), ("routes", Kind.ROUTES), ("tiers", Kind.PRICES))


@policy.callback()
def group() -> None:
    """Check policy files before they are put in force."""  # `check` stays a word of its own


@policy.command()
def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files with routes, prices or pools."),
    ],
    *,
    prices: Annotated[
        Path | None,
        typer.Option(
            help="Prices that belong to the routes.", show_default="prices.yaml beside the file"
        ),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="What the files hold.", show_default="seen by their keys")
    ] = None,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="Models and tokenizers lie elsewhere.")
    ] = False,
    this_machine: Annotated[
        bool,
        typer.Option("--this-machine", help="Pools run here: their cores have to be there too."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether router and scaler would take these files.

    Exit status 0: they would. 1: not all of them; file, line, key, rule and value say why. 2: they
    could not be checked.
    """
    modules = {one: "router" if one is not Kind.SCALING else "scaler" for one in Kind}
    if not all(in_the_tree(f"services.{service}.check") for service in set(modules.values())):
        hint = "Run it in the folder that holds services/."
        end("Checking policy files needs Pennyweight's source tree.", hint, code=USAGE)
    wrong = False
    for file in files:
        held = kind or _kind_of(file)
        command = [sys.executable, "-m", f"services.{modules[held]}.check"]
        command += ["--no-models"] if no_models else []
        if held is Kind.ROUTES:
            command += [str(file), str(prices or file.with_name("prices.yaml"))]
        else:
            command += ["--this-machine"] if this_machine and held is Kind.SCALING else []
            command.append(str(file))
        found = _asked(command)
        _show(file, held, found, as_json=as_json)
        wrong = wrong or bool(found["problems"])
    if wrong:
        raise typer.Exit(FAILED)


def _kind_of(file: Path) -> Kind:
    """What a file holds, by the keys at its left edge."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        end(f"{plain(str(file))} cannot be read: {error}", code=USAGE)
    keys = set(re.findall(r"^[\"']?(routes|tiers|pools)[\"']?\s*:", text, re.MULTILINE))
    found = next((kind for key, kind in _KEYS if key in keys), None)
    if found is None:
        hint = "It has none of the keys routes, tiers and pools; say with --kind what it should be."
        end(f"{plain(str(file))} is no policy file.", hint, code=USAGE)
    return found


def _asked(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        missing = re.search(r"No module named '([^'.]+)", lines[-1]) if lines else None
        hint = "python -m pip install -e '.[router,scaler]'" if missing else "\n".join(lines[-3:])
        end("The files could not be checked.", hint, code=USAGE)
    return found


def _show(file: Path, kind: Kind, found: dict[str, Any], *, as_json: bool) -> None:
    problems = tuple(PolicyProblem(**problem) for problem in found["problems"])
    source = found["source"] or str(file)
    if as_json:
        shown = {
            "kind": "policy_check",
            "file": str(file),
            "holds": kind,
            "good": not problems,
            "source": source,  # another file may be to blame, such as the prices
            "problems": found["problems"],
        }
        print(json.dumps(shown, ensure_ascii=False))  # noqa: T201
        return
    screen = console()
    if not problems:
        screen.print(Text(f"{plain(str(file))}: good {kind}", style="green"), soft_wrap=True)
        return
    lines = [f"{plain(source)} would be refused:", *problem_lines(problems)]
    screen.print(Text("\n".join(lines), style="red"), soft_wrap=True)
