"""What tiers are asked for: counters of several routers, made into one rate.

Pure. Counters only grow until their router starts anew; what they grew by adds up over routers and
over time, in any order.
"""

from dataclasses import dataclass

from services.common.buckets import quantile
from services.common.load_totals import LoadTotals


def grown(before: LoadTotals, after: LoadTotals, *, restarted: bool) -> LoadTotals:
    """What counters grew by between two reports of one router; never negative.

    Counters that are lower than before have begun again, as those of a router that `restarted`
    have: then all they have now came since.
    """
    difference = after + -before
    return after if restarted or difference.falls else difference


@dataclass(frozen=True)
class Demand:
    """What was asked of a tier in the `seconds` before now, added up over routers."""

    seconds: float
    counted: LoadTotals

    @property
    def arrivals_per_second(self) -> float:
        """The tier's turns at a request."""
        return self.counted.arrivals / self.seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Tokens of prompts that arrived."""
        return self.counted.prompt_tokens / self.seconds

    @property
    def output_tokens_per_second(self) -> float:
        """Tokens of answers that ended."""
        return self.counted.output_tokens / self.seconds

    @property
    def finished_per_second(self) -> float:
        """Answers that ended."""
        return self.counted.finished / self.seconds

    def first_text_seconds(self, fraction: float) -> float | None:
        """Seconds within which this fraction of the answers began; None: there were none."""
        return quantile(self.counted.first_text, fraction)

    def between_tokens_seconds(self, fraction: float) -> float | None:
        """The same of the mean time between two tokens of an answer."""
        return quantile(self.counted.between_tokens, fraction)
