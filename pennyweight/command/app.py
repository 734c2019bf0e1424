"""The command's table of contents."""

import typer

from pennyweight.command import __doc__ as about
from pennyweight.command.asking import ask, explain, routes
from pennyweight.command.fleet import pools
from pennyweight.command.keys import key
from pennyweight.command.ledger import ledger

app = typer.Typer(
    help=about,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (ask, explain, routes, pools, key, ledger):
    app.command()(command)
