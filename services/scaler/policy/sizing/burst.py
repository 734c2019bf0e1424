"""Burst: while demand of a short window is many times what the ready replicas do, never down.

Pure. Knative's panic mode, with demand in work in place of concurrency: it begins when the short
window's demand is over the threshold, lasts for a while after the last time it was, and within it
the size follows the short window up and never falls.
"""

from services.scaler.policy.sizing.settings import Burst


def burst_until(
    burst: Burst, before: float | None, now: float, *, demand: float, doable: float
) -> float | None:
    """Until when the burst lasts; None: there is none.

    Args:
        burst: the settings.
        before: until when it lasted at the tick before; None: there was none.
        now: time of the tick.
        demand: of the short window, in replicas' worth.
        doable: by the ready replicas, in the same unit; at least one is assumed.
    """
    if demand >= burst.threshold * max(doable, 1.0):
        return now + burst.keep_seconds
    return before if before is not None and now < before else None
