"""Ask a running Pennyweight, see what it decides and costs, halt its levers, make keys.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 nothing answers there, 130 interrupted,
141 nobody reads the output; of calibrate, 3 is not certified.
"""

import os
import select
import sys
from pathlib import Path

UNREAD = 141
"""What a shell says of programs that SIGPIPE ends, as `head` ends what writes to it."""


def main() -> None:
    """Runs the command; says how to install what it needs where that is missing."""
    try:
        from pennyweight.command.app import app  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "grpc_health"):
            raise
        sys.stderr.write("The command needs its extra: python -m pip install 'pennyweight[cli]'\n")
        raise SystemExit(2) from None
    if sys.stdout is None:  # as a shell's >&- closes it
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - till the end
    output = os.dup(sys.stdout.fileno())  # stays what it is, whatever becomes of standard output
    try:
        app()
    except SystemExit as ended:
        if ended.code and _is_unread(output):
            raise SystemExit(UNREAD) from None
        raise


def _is_unread(output: int) -> bool:
    """Whether a pipe's reader has gone, so that writing failed, and rightly in silence."""
    poll = select.poll()
    poll.register(output, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
