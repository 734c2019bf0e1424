"""How much work may go into finding out whether a form that a caller wants can be used.

Whoever counts it counts before or while the work is done: it keeps the interpreter's lock, and so
holds up everybody even from a thread of its own.
"""

MAX_EFFORT = 100_000
"""Steps of about half a microsecond each, for one form, and for all forms of a request."""


MAX_STEPS = 20_000
"""Of all checks of one answer: some tens of milliseconds."""


class TooMuch(Exception):
    """It would take more than is left."""


class Effort:
    """What one form has taken.

    Attributes:
        spent: steps so far.
    """

    def __init__(self, most: int = MAX_EFFORT) -> None:
        self._most = most
        self.spent = 0

    def spend(self, steps: int) -> None:
        """Counts them.

        Raises:
            TooMuch: there are not so many left.
        """
        self.spent += steps
        if self.spent > self._most:
            raise TooMuch("takes too long to check")
