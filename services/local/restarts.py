"""Whether a service that ended by itself is started anew, and when. Pure."""

from collections.abc import Sequence

from services.common.backoff import Backoff

MOST = 5
WITHIN_SECONDS = 60.0
BAD_SETTINGS = 2
"""Exit status of a service whose settings or policies are wrong."""

MENDING_SECONDS = 5.0
"""Between two tries of such a one: a file may be mended, and the others serve on meanwhile."""

_PAUSES = Backoff(0.5, 5.0)


def pause_before_restart(ends: Sequence[float], code: int) -> float | None:
    """How many seconds to wait before the start; None: it is of no use.

    Args:
        ends: when the service ended by itself, but not for its settings; the last time last.
        code: the exit status of this time.
    """
    if code == BAD_SETTINGS:
        return MENDING_SECONDS
    recent = sum(ends[-1] - end < WITHIN_SECONDS for end in ends)
    if recent > MOST:
        return None
    return 0.0 if recent == 1 else _PAUSES.seconds(recent - 1)
