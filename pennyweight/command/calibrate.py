"""``calibrate``: passes its arguments on to the source tree, where calibrations are made."""

import os
import sys

import typer

from pennyweight.command.ending import USAGE, end
from pennyweight.command.tree import in_the_tree

MODULE = "services.router.calibrate"


def calibrate(context: typer.Context) -> None:
    """Choose a route's thresholds on its own evidence and certify them; see `calibrate --help`."""
    if not in_the_tree(MODULE):
        hint = "Run it in the folder that holds services/."
        end("Calibrating needs Pennyweight's source tree.", hint, code=USAGE)
    command = [sys.executable, "-m", MODULE, *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - the same interpreter, no shell
