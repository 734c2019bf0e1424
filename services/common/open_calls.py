"""Calls that are open: from the moment it is known whose they are until gRPC lets go of them.

A call outlives its work for as long as nobody reads its end, and holds memory meanwhile.
"""

from collections import Counter
from typing import Any

from services.common.errors import Unavailable

RETRY_SECONDS = 1.0


class OpenCalls:
    """How many calls are open, and whose.

    Attributes:
        most: of everybody's together; None bounds only each one's.
        most_of_one: of one caller's.
        crowd: once so many are open together, one caller may have `most_in_crowd`; None: never.
    """

    def __init__(
        self,
        most: int | None,
        most_of_one: int,
        *,
        crowd: int | None = None,
        most_in_crowd: int = 1,
    ) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self.crowd = crowd
        self.most_in_crowd = most_in_crowd
        self._all = 0
        self._of: Counter[str] = Counter()

    def enter(self, caller: str, context: Any) -> None:
        """Counts a call until it is done.

        Args:
            caller: whose it is.
            context: gRPC's, of the call.

        Raises:
            Unavailable: too many are open; nothing was done.
        """
        crowded = self.crowd is not None and self._all >= self.crowd
        of_one = self.most_in_crowd if crowded else self.most_of_one
        if self._of[caller] >= of_one or (self.most is not None and self._all >= self.most):
            raise Unavailable(
                "too many calls of this caller, or of all, are open; try again, or another server",
                reason="TOO_MANY_CALLS",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._all += 1
        self._of[caller] += 1

        def done(_: Any) -> None:
            self._all -= 1
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

        context.add_done_callback(done)
