"""The command's table of contents."""

import typer

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

app = typer.Typer(
    help=about,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (ask, explain, outcome, routes, pools, key, ledger):
    app.command()(command)
app.add_typer(lever, name="lever")
app.add_typer(policy, name="policy")
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)(calibrate)
