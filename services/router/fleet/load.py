"""What the last minute looked like, tier by tier: the figures that load reports carry."""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.router.policy.routes import Policies

WINDOW_SECONDS = 60.0
MAX_SAMPLES = 2000
QUANTILES = (0.5, 0.95)
FRESH_SECONDS = 1.0
"""How long `LoadWindow.slow_seconds` stays as it was computed."""


@dataclass(frozen=True)
class LoadSummary:
    """One tier's figures; quantiles are pairs of quantile and seconds, empty without requests."""

    tokens_per_second: float
    first_text: tuple[tuple[float, float], ...]
    between_tokens: tuple[tuple[float, float], ...]


@dataclass
class _TierWindow:
    samples: deque[tuple[float, float, float | None]] = field(
        default_factory=lambda: deque(maxlen=MAX_SAMPLES)
    )
    totals: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    tokens: int = 0
    since: float | None = None
    slow: float | None = None
    slow_since: float | None = None


class LoadWindow:
    """Finished requests of the last minute; state for each tier, bounded."""

    def __init__(self) -> None:
        self._tiers: dict[str, _TierWindow] = defaultdict(_TierWindow)

    def add(
        self, tier: str, now: float, *, first_text: float, decode_seconds: float, tokens: int
    ) -> None:
        """Takes a finished request: seconds to its first text, seconds and tokens after that.

        An answer that came at once says nothing about the time between tokens.
        """
        window = self._tiers[tier]
        between = decode_seconds / (tokens - 1) if tokens > 1 and decode_seconds > 0 else None
        window.samples.append((now, first_text, between))
        window.totals.append((now, first_text + decode_seconds))
        window.tokens += tokens

    def adopt(self, policies: Policies) -> None:
        """Forgets tiers that policies which come in force do not have."""
        for name in self._tiers.keys() - policies.tiers.keys():
            del self._tiers[name]

    def slow_seconds(self, tier: str, now: float) -> float | None:
        """Seconds that 95 % of the last minute's answers took at most; None without any."""
        window = self._tiers[tier]
        if window.slow_since is None or now - window.slow_since >= FRESH_SECONDS:
            totals = window.totals
            while totals and totals[0][0] < now - WINDOW_SECONDS:
                totals.popleft()
            found = _quantiles(total for _, total in totals)
            window.slow, window.slow_since = (found[1][1] if found else None), now
        return window.slow

    def summary(self, tier: str, now: float) -> LoadSummary:
        """The tier's figures; tokens a second count from the last summary."""
        window = self._tiers[tier]
        while window.samples and window.samples[0][0] < now - WINDOW_SECONDS:
            window.samples.popleft()
        passed = now - window.since if window.since is not None else 0.0
        rate = window.tokens / passed if passed > 0 else 0.0
        window.tokens, window.since = 0, now
        return LoadSummary(
            tokens_per_second=rate,
            first_text=_quantiles(sample[1] for sample in window.samples),
            between_tokens=_quantiles(
                sample[2] for sample in window.samples if sample[2] is not None
            ),
        )


def _quantiles(values: Iterable[float]) -> tuple[tuple[float, float], ...]:
    ordered = sorted(values)
    if not ordered:
        return ()
    return tuple((q, ordered[min(len(ordered) - 1, int(q * len(ordered)))]) for q in QUANTILES)
