"""How long a replica may stay silent, and from when on its silence is held against it.

A tier says how long a pause is usual. Where another replica, or another tier, could still answer,
a request spends no more than a share of the time it has left on one that says nothing: the next try
needs the rest. But a caller in a hurry proves nothing about a replica: only a silence that would be
long whoever had asked makes others avoid it.
"""

from services.router.policy.routes import Tier

TOKENS_A_PAUSE = 64

LEAST_SILENCE_SECONDS = 2.0
"""No shorter silence is held against a replica, unless its tier says that it is too long."""

SLOW_TIMES = 2.0
"""A silence of so many times what nearly all answers take is no slow answer any more."""


def usual(tier: Tier, *, streams: bool, most: int, begun: bool) -> float:
    """Seconds of silence that are usual on a tier.

    Args:
        tier: it.
        streams: text comes as it is made; else all of it comes at the end, and a pause is granted
            for each stretch of the longer ones.
        most: output tokens that were asked for.
        begun: some of the answer has come.
    """
    if begun:
        return tier.idle_seconds
    if streams:
        return tier.first_token_seconds
    return tier.first_token_seconds + tier.idle_seconds * (most // TOKENS_A_PAUSE)


def shared(tier: Tier, seconds: float, *, left: float, slow: float, doubted: bool = False) -> float:
    """Seconds of silence after which a request that can go elsewhere does so.

    Args:
        tier: that is silent.
        seconds: that are usual.
        left: until the request's deadline.
        slow: seconds that nearly all answers of the tier take at most; 0 where none came lately.
        doubted: the replica failed before, and this request tries whether it is well again.
    """
    if left <= 0.0:  # nothing is gained elsewhere
        return seconds
    granted = max(tier.silent_share * left, SLOW_TIMES * slow)
    if doubted and slow:
        granted = min(granted, max(LEAST_SILENCE_SECONDS, SLOW_TIMES * slow))
    return min(seconds, granted)


def is_held_against(seconds: float, *, usual_seconds: float, slow: float) -> bool:
    """Whether others should avoid a replica that was silent for so long."""
    return seconds >= min(usual_seconds, max(LEAST_SILENCE_SECONDS, SLOW_TIMES * slow))
