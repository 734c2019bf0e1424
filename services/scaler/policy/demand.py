"""What tiers are asked for: counters of several routers, made into one rate.

Pure. Counters only grow until their router starts anew; what they grew by adds up over routers and
over time, in any order.
"""

from dataclasses import dataclass

from services.common.buckets import merged, quantile


@dataclass(frozen=True)
class Counted:
    """What a tier had to do in some span of time.

    Attributes:
        arrivals: its turns at a request.
        prompt_tokens: tokens of their prompts.
        output_tokens: tokens of the answers that ended.
        finished: answers that ended.
        first_text: these by time to first text, in `services.common.buckets`.
        between_tokens: these by mean time between two tokens, the same.
    """

    arrivals: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    finished: int = 0
    first_text: tuple[int, ...] = ()
    between_tokens: tuple[int, ...] = ()

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.arrivals + other.arrivals,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.finished + other.finished,
            merged(self.first_text, other.first_text),
            merged(self.between_tokens, other.between_tokens),
        )

    def __neg__(self) -> "Counted":
        return Counted(
            -self.arrivals,
            -self.prompt_tokens,
            -self.output_tokens,
            -self.finished,
            tuple(-count for count in self.first_text),
            tuple(-count for count in self.between_tokens),
        )

    @property
    def falls(self) -> bool:
        """Whether any figure is negative."""
        figures = (self.arrivals, self.prompt_tokens, self.output_tokens, self.finished)
        return min(*figures, *self.first_text, *self.between_tokens) < 0


def grown(before: Counted, after: Counted, *, restarted: bool) -> Counted:
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
    counted: Counted

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
