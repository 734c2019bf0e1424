"""What part of something shared one tenant may have."""

import math


def most_of(whole: int, share: float) -> int:
    """How many of so many one tenant may have: its share in (0, 1], but at least one.

    Nothing of nothing: where there is no room at all, there is none for a tenant.
    """
    return min(whole, max(1, math.floor(whole * share + 1e-9)))
