"""``python -m services.router.calibrate --route R``: calibrates a route on its own traffic."""

import logging
import sys
from collections.abc import Sequence

REFUSED, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status. Says what to install where it is missing."""
    # On a new machine Matplotlib says that it looks at fonts: of no use to whoever calibrates.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from services.router.calibrate.command import run  # noqa: PLC0415 - extras may be missing
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("services", "pennyweight"):
            raise
        sys.stderr.write(
            f"Calibrating needs {error.name}: python -m pip install -e '.[router,calibrate]'\n"
        )
        return REFUSED
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
