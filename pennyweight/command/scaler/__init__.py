"""``scaler``: why pools have their size, and how the policy behind it is changed and taken back."""

import typer

from pennyweight.command.scaler.decisions import watch, why
from pennyweight.command.scaler.overrides import overrides, pause, pin, resume
from pennyweight.command.scaler.policies import apply, check, history, rollback
from pennyweight.command.scaler.simulations import simulate
from pennyweight.command.scaler.trials import plan

scaler = typer.Typer(
    help="See why pools have their size; try, apply and take back scaling files.",
    no_args_is_help=True,
)

scaler.command()(why)
scaler.command()(watch)
scaler.command()(check)
scaler.command()(plan)
scaler.command()(apply)
scaler.command()(history)
scaler.command()(rollback)
scaler.command()(simulate)
scaler.command()(pause)
scaler.command(context_settings={"ignore_unknown_options": True})(pin)  # -1 is a wrong size
scaler.command()(resume)
scaler.command()(overrides)
