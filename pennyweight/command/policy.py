"""``policy check``: whether policy files would be taken, without anything that runs.

The rules are the services', so the checking is done by the source tree; here is only who is asked,
which files belong together, and what is shown. Each file is checked by itself, then with those that
it belongs to: given with it, or beside it under their usual names.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pennyweight.answers import PolicyProblem
from pennyweight.command.ending import FAILED, USAGE, end
from pennyweight.command.options import Json
from pennyweight.command.refused import note_lines, problem_lines
from pennyweight.command.show import console, plain
from pennyweight.command.tree import in_the_tree

policy = typer.Typer(help="Check policy files before they are put in force.", no_args_is_help=True)


class Kind(StrEnum):
    """What a policy file holds."""

    ROUTES = "routes"
    PRICES = "prices"
    SCALING = "scaling"


_GOOD = {
    Kind.ROUTES: "a router would take these routes",
    Kind.PRICES: "a router would take these prices",
    Kind.SCALING: "a scaler would take these pools",
}
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
    routes: Annotated[
        Path | None,
        typer.Option(
            help="Routes whose tiers the pools serve.", show_default="routes.yaml beside the file"
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
    """Say whether router and scaler would take these files, and whether they go together.

    Exit status 0: they would; notes say what else they need. 1: not all of them; file, line, key,
    rule and value say why. 2: they could not be checked.
    """
    if not all(in_the_tree(f"services.{service}.check") for service in ("router", "scaler")):
        hint = "Run it in the folder that holds services/."
        end("Checking policy files needs Pennyweight's source tree.", hint, code=USAGE)
    held = {file: _kind_of(file, _text_of(file), kind) for file in files}
    given = [file for file in held if held[file] is Kind.ROUTES]
    checks = _Checks([routes] if routes else given, prices, no_models, this_machine)
    wrong = False
    for file in files:
        found = checks.found(file, held[file])
        _show(file, held[file], found, as_json=as_json)
        wrong = wrong or bool(found["problems"])
    if wrong:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class _Checks:
    """What is asked of each file. `routes` are those given, the other fields the command's."""

    routes: list[Path]
    prices: Path | None
    no_models: bool
    this_machine: bool

    def found(self, file: Path, kind: Kind) -> dict[str, Any]:
        """What is wrong with a file, by itself or with those that belong to it."""
        if kind is Kind.ROUTES:
            found = self._of_routes(file, self._prices_of(file), no_models=self.no_models)
            pools = file.with_name("scaling.yaml")
            together = _with_tiers(pools, found) if pools.is_file() else None
            return found if found["problems"] else together or found
        if kind is Kind.PRICES:
            found = _asked("router", str(file))
            for routes in () if found["problems"] else self._routes_of(file):
                together = self._of_routes(routes, file, no_models=True)
                if together["problems"]:
                    return together
            return found
        models = ["--no-models"] if self.no_models else []
        cores = ["--this-machine"] if self.this_machine else []
        found = _asked("scaler", *models, *cores, str(file))
        if found["problems"]:
            return found
        unchecked = "no routes.yaml lies beside it; name its routes with --routes"
        for routes in self._routes_of(file):
            known = self._of_routes(routes, self._prices_of(routes), no_models=True)
            if (together := _with_tiers(file, known)) is not None:
                return together
            unchecked = f"{routes} or its prices would be refused" if known["problems"] else ""
        if unchecked:
            note = {"key": "pools", "rule": f"their tiers were not checked: {unchecked}"}
            found["notes"].append({"line": 0, "value": "", **note})
        return found

    def _routes_of(self, file: Path) -> list[Path]:
        """The routes that a file belongs to: of those given, the ones in its folder first."""
        given = [routes for routes in self.routes if routes.parent == file.parent]
        beside = file.with_name("routes.yaml")
        return given or self.routes or ([beside] if beside.is_file() else [])

    def _prices_of(self, routes: Path) -> Path:
        return self.prices or routes.with_name("prices.yaml")

    def _of_routes(self, routes: Path, prices: Path, *, no_models: bool) -> dict[str, Any]:
        return _asked("router", *(["--no-models"] if no_models else []), str(routes), str(prices))


def _with_tiers(pools: Path, routes: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is wrong with pools and the tiers of good routes together; None where nothing is."""
    if routes["problems"]:
        return None
    tiers = json.dumps(routes["tiers"])
    found = _asked("scaler", "--no-models", "--tiers", tiers, str(pools))
    return {**found, "taken": True} if found["problems"] else None


def _text_of(file: Path) -> str:
    """A file's text; ends the command where it cannot be read."""
    name = plain(str(file))
    if file.exists() and not file.is_file() and not file.is_dir():  # a pipe keeps its reader
        end(f"{name} is no plain file.", code=USAGE)
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        end(f"{name} cannot be read: {error.strerror}.", code=USAGE)
    except UnicodeDecodeError:
        end(f"{name} is not UTF-8 text.", code=USAGE)


def _kind_of(file: Path, text: str, said: Kind | None) -> Kind:
    """What a file holds: as is said, or by the keys at its left edge."""
    if said is not None:
        return said
    keys = set(re.findall(r"^[\"']?(routes|tiers|pools)[\"']?\s*:", text, re.MULTILINE))
    found = next((kind for key, kind in _KEYS if key in keys), None)
    if found is None:
        hint = "It has none of the keys routes, tiers and pools; say with --kind what it should be."
        end(f"{plain(str(file))} is no policy file.", hint, code=USAGE)
    return found


def _asked(service: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"services.{service}.check", *arguments]
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
            "notes": found.get("notes", []),
        }
        print(json.dumps(shown, ensure_ascii=False))  # noqa: T201
        return
    screen = console()
    if not problems:
        screen.print(Text(f"{plain(str(file))}: {_GOOD[kind]}.", style="green"), soft_wrap=True)
        notes = [PolicyProblem(**note) for note in found.get("notes", ())]
        for line in note_lines(notes):
            screen.print(Text(line, style="yellow"), soft_wrap=True)
        return
    how = "does not go with its routes" if "taken" in found else "would be refused"
    lines = [f"{plain(source)} {how}:", *problem_lines(problems)]
    screen.print(Text("\n".join(lines), style="red"), soft_wrap=True)
