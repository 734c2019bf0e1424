"""Ask a running Pennyweight, see what it decides and costs, halt its levers, make keys.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 nothing answers there, 130 interrupted;
of calibrate, 3 is not certified.
"""

import sys


def main() -> None:
    """Runs the command; says how to install what it needs where that is missing."""
    try:
        from pennyweight.command.app import app  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write("The command needs its extra: python -m pip install 'pennyweight[cli]'\n")
        raise SystemExit(2) from None
    app()
