"""What tiers had to do, in figures that add up: over routers, over time, in any order.

A router counts them since its start, the scaler adds up what they grew by.
"""

from dataclasses import dataclass

from services.common.buckets import merged


@dataclass(frozen=True)
class LoadTotals:
    """What a tier had to do in some span of time; never negative but as a difference.

    Attributes:
        arrivals: its turns at a request.
        prompt_tokens: tokens of the prompts of these.
        output_tokens: tokens of the answers that ended.
        finished: answers that ended.
        first_text: these by time to first text, in `services.common.buckets`.
        between_tokens: those of more than one token by mean time between two, the same.
    """

    arrivals: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    finished: int = 0
    first_text: tuple[int, ...] = ()
    between_tokens: tuple[int, ...] = ()

    def __add__(self, other: "LoadTotals") -> "LoadTotals":
        return LoadTotals(
            self.arrivals + other.arrivals,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.finished + other.finished,
            merged(self.first_text, other.first_text),
            merged(self.between_tokens, other.between_tokens),
        )

    def __neg__(self) -> "LoadTotals":
        return LoadTotals(
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
