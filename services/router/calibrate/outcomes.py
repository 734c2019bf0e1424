"""Joins outcomes to the pairs they are of, when the ledger is read.

What an outcome says of the answers, and what is assumed, is in `policy.judging`. What it leaves
unknown counts as what speaks for the top tier.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from services.router.policy.judging import at_worst, qualities_from_outcome

LedgerRecord = Mapping[str, Any]


def first_of_each(outcomes: Iterable[LedgerRecord]) -> dict[str, LedgerRecord]:
    """Outcomes by request; the first one that was recorded counts."""
    found: dict[str, LedgerRecord] = {}
    for outcome in sorted(outcomes, key=lambda outcome: str(outcome.get("time"))):
        found.setdefault(str(outcome.get("request_id")), outcome)
    return found


def judged(pair: LedgerRecord, outcomes: Mapping[str, LedgerRecord]) -> LedgerRecord:
    """The pair with the qualities that its outcome tells; as it was where it has some or none."""
    outcome = outcomes.get(str(pair.get("request_id")))
    tiers = pair.get("tiers")
    if outcome is None or not isinstance(tiers, list) or not all(map(_unjudged, tiers)):
        return pair
    names = [tier["tier"] for tier in tiers]
    digests, answered = pair.get("digests"), pair.get("answered")
    if isinstance(answered, str):
        answered = names.index(answered) if answered in names else -1
    # A trimmed prompt's pair has one answer more, to the whole prompt.
    if not isinstance(answered, int) or not isinstance(digests, list) or len(digests) < len(tiers):
        return pair
    resolved, rating = outcome.get("resolved"), outcome.get("rating")
    corrected = outcome.get("corrected_digest")
    qualities = qualities_from_outcome(
        answered,
        digests[: len(tiers)],
        resolved if isinstance(resolved, bool) else None,
        rating if isinstance(rating, int | float) else None,
        corrected if isinstance(corrected, str) else None,
    )
    if qualities is None:
        return pair
    filled = zip(tiers, at_worst(qualities), strict=True)
    return {**pair, "tiers": [{**tier, "quality": quality} for tier, quality in filled]}


def _unjudged(tier: object) -> bool:
    return isinstance(tier, dict) and tier.get("quality") is None and "tier" in tier
