"""What tiers had to do: counters since the start, and how long the last minute's answers took.

Load reports carry the counters; requests are planned with the last minute. No query changes
anything that another could see.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from services.common.buckets import BUCKETS, bucket_of
from services.common.load_totals import LoadTotals
from services.router.policy.routes import Policies

WINDOW_SECONDS = 60.0
MAX_SAMPLES = 2000
SLOW_FRACTION = 0.95
"""Of the last minute's answers: so many ran at most as long as `slow_run_seconds` says."""

FRESH_SECONDS = 1.0
"""How long `LoadWindow.slow_run_seconds` stays as it was computed."""


class _Sample(NamedTuple):
    """An answer that ended at `at` and `ran` on its replica, in seconds."""

    at: float
    ran: float


@dataclass
class _Tier:
    arrivals: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    finished: int = 0
    first_text: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    between_tokens: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    samples: deque[_Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    slow_run: float | None = None
    slow_since: float | None = None


class LoadWindow:
    """Counters and the answers of the last minute; state for each tier, bounded."""

    def __init__(self) -> None:
        self._tiers: dict[str, _Tier] = defaultdict(_Tier)

    def arrived(self, tier: str, *, prompt_tokens: int) -> None:
        """Takes a request whose turn at the tier comes, before it asks for a replica."""
        counted = self._tiers[tier]
        counted.arrivals += 1
        counted.prompt_tokens += prompt_tokens

    def add(
        self,
        tier: str,
        now: float,
        *,
        first_text: float,
        decode_seconds: float,
        tokens: int,
        ran: float | None = None,
    ) -> None:
        """Takes an answer that ended.

        Args:
            tier: that gave it.
            now: when it ended.
            first_text: seconds from its turn at the tier to its first text, waits and lost tries
                included.
            decode_seconds: after that; an answer that came at once says nothing about the time
                between tokens.
            tokens: of the answer.
            ran: seconds on the replica that gave it; None where all of it was there.
        """
        counted = self._tiers[tier]
        between = decode_seconds / (tokens - 1) if tokens > 1 and decode_seconds > 0 else None
        counted.output_tokens += tokens
        counted.finished += 1
        counted.first_text[bucket_of(first_text)] += 1
        if between is not None:
            counted.between_tokens[bucket_of(between)] += 1
        while counted.samples and counted.samples[0].at < now - WINDOW_SECONDS:
            counted.samples.popleft()
        counted.samples.append(_Sample(now, first_text + decode_seconds if ran is None else ran))

    def adopt(self, policies: Policies) -> None:
        """Forgets tiers that policies which come in force do not have."""
        for name in self._tiers.keys() - policies.tiers.keys():
            del self._tiers[name]

    def slow_run_seconds(self, tier: str, now: float) -> float | None:
        """Seconds that 95 % of the last minute's answers ran at most; None without any.

        On the replica that answered: no lost try, and no wait in line, which is another for each
        tenant. Requests ask this: it is computed once a second and kept.
        """
        counted = self._tiers[tier]
        if counted.slow_since is None or now - counted.slow_since >= FRESH_SECONDS:
            since = now - WINDOW_SECONDS
            recent = [sample for sample in counted.samples if sample.at >= since]
            counted.slow_run = _slow([sample.ran for sample in recent])
            counted.slow_since = now
        return counted.slow_run

    def totals(self, tier: str) -> LoadTotals:
        """What the tier had to do since it came in force; every figure only grows."""
        counted = self._tiers.get(tier, _Tier())
        return LoadTotals(
            arrivals=counted.arrivals,
            prompt_tokens=counted.prompt_tokens,
            output_tokens=counted.output_tokens,
            finished=counted.finished,
            first_text=tuple(counted.first_text),
            between_tokens=tuple(counted.between_tokens),
        )


def _slow(seconds: list[float]) -> float | None:
    """What so many of them are at most; None without any."""
    return sorted(seconds)[int(SLOW_FRACTION * len(seconds))] if seconds else None
