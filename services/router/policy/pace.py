"""How quick each tier's engine is, for the tokens of runs that it does not count for us.

A whole answer that is ended in its middle leaves no trace of how far it had come where the engine
does not say. It is estimated from the tier's pace: seconds over tokens of the runs that were
counted, younger ones weighing more. A run weighs by its tokens: one of a single token says little
about how long the next hundred take.
"""

ASSUMED_SECONDS = 0.02
"""A token, before any run was counted: 50 tokens a second, a usual pace of one stream."""

KEPT = 0.95
"""Share of what runs so far weigh that is left after another one."""


class Paces:
    """State of the process, a number a tier."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def note(self, tier: str, seconds: float, tokens: int) -> None:
        """Takes a run that was counted: from its start on the replica to its end."""
        if tokens < 1:
            return
        before, made = self._seen.get(tier, (0.0, 0.0))
        self._seen[tier] = KEPT * before + seconds, KEPT * made + tokens

    def tokens(self, tier: str, seconds: float, most: int) -> int:
        """Tokens that a run of so many seconds has made, by estimate; at most `most`."""
        before, made = self._seen.get(tier, (ASSUMED_SECONDS, 1.0))
        if seconds <= 0.0:
            return 0
        return min(most, round(seconds * made / before)) if before > 0.0 else most
