"""How quick each tier's engine is, for the tokens of runs that it does not count for us.

A whole answer that is ended in its middle leaves no trace of how far it had come where the engine
does not say. It is estimated from the tier's pace: the mean time a token took, over the runs that
were counted, younger ones weighing more.
"""

ASSUMED_SECONDS = 0.02
"""A token, before any run was counted: 50 tokens a second, a usual pace of one stream."""

WEIGHT = 0.05
"""Of the youngest run in the mean."""


class Paces:
    """State of the process, a number a tier."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, tier: str, seconds: float, tokens: int) -> None:
        """Takes a run that was counted: from its start on the replica to its end."""
        if tokens < 1:
            return
        found = seconds / tokens
        before = self._seconds.get(tier, found)
        self._seconds[tier] = before + WEIGHT * (found - before)

    def tokens(self, tier: str, seconds: float, most: int) -> int:
        """Tokens that a run of so many seconds has made, by estimate; at most `most`."""
        pace = self._seconds.get(tier, ASSUMED_SECONDS)
        return min(most, round(seconds / pace)) if pace > 0.0 else most
