"""``calibrate``: passes its arguments on to the source tree, where calibrations are made."""

import os
import sys
from pathlib import Path

import typer

from pennyweight.command.ending import USAGE, end

MODULE = "services.router.calibrate"


def calibrate(context: typer.Context) -> None:
    """Choose a route's thresholds on its own evidence and certify them; see `calibrate --help`."""
    place = f"{MODULE.replace('.', '/')}/__main__.py"
    # As `python -m` looks for it: in this folder first.
    if not any(Path(folder, place).is_file() for folder in ("", *sys.path)):
        hint = "Run it in the folder that holds services/."
        end("Calibrating needs Pennyweight's source tree.", hint, code=USAGE)
    command = [sys.executable, "-m", MODULE, *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - the same interpreter, no shell
