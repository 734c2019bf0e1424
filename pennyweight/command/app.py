"""The command's table of contents."""

from typing import Annotated

import typer

from pennyweight.channel import version_here
from pennyweight.command import __doc__ as about
from pennyweight.command.asking import ask, explain
from pennyweight.command.calibrate import calibrate
from pennyweight.command.fleet import pools
from pennyweight.command.keys import key
from pennyweight.command.ledger import ledger
from pennyweight.command.levers import lever
from pennyweight.command.outcomes import outcome
from pennyweight.command.policy import policy
from pennyweight.command.routes import routes
from pennyweight.command.scaler import scaler

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ABOUT = "\n\n".join(" ".join(part.split()) for part in str(about).split("\n\n"))
"""Whole paragraphs: a line end would stay one in them."""


def _print_version(*, asked: bool) -> None:
    if asked:
        print(f"pennyweight {version_here()}")  # noqa: T201
        raise typer.Exit


@app.callback(help=ABOUT)
def _of_all(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What stands before the name of a command."""


for command in (ask, explain, outcome, routes, pools, key, ledger):
    app.command()(command)
app.add_typer(lever, name="lever")
app.add_typer(policy, name="policy")
app.add_typer(scaler, name="scaler")
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)(calibrate)
