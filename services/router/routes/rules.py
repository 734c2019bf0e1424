"""Rules over several values of the policy files: names that lead somewhere, values that agree."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from services.common.strict_yaml import Place
from services.router.policy.routes import JudgeKind, Price
from services.router.routes.schema import QualityEntry, RouteEntry, RoutesFile

Broken = tuple[Place, str]
"""Place of a value in the routes file, and the rule that it breaks."""

MIN_TIERS = 2
"""Tiers that there must be for a choice between them."""


def broken_rules(declared: RoutesFile) -> Iterator[Broken]:
    """Every rule that the routes file breaks by itself."""
    for name, entry in declared.routes.items():
        place = ("routes", name)
        yield from _ladder((*place, "ladder"), entry, declared)
        yield from _choice(place, entry)
        yield from _sizes(place, entry)


def broken_prices(
    declared: RoutesFile, prices: Mapping[str, Price], prices_file: Path
) -> Iterator[Broken]:
    """Every rule that it breaks together with the prices."""
    for name in declared.tiers:
        if name not in prices:
            yield ("tiers", name), f"has no price in {prices_file}"
    for name, entry in declared.routes.items():
        for low, high in combinations(entry.ladder, 2):
            if low not in prices or high not in prices:
                continue
            lower, higher = prices[low], prices[high]
            if lower.prompt > higher.prompt and lower.output > higher.output:
                rule = f"cheapest first, but {low} is dearer than {high}, got {list(entry.ladder)}"
                yield ("routes", name, "ladder"), rule


def _ladder(ladder: Place, entry: RouteEntry, declared: RoutesFile) -> Iterator[Broken]:
    for tier in entry.ladder:
        if tier not in declared.tiers:
            yield ladder, f"no such tier, got {tier!r}"
    if len(set(entry.ladder)) != len(entry.ladder):
        yield ladder, f"names a tier twice, got {list(entry.ladder)}"


def _choice(place: Place, entry: RouteEntry) -> Iterator[Broken]:
    """Who chooses the tier: the policy, or what was learned."""
    quality, fixed = entry.quality, entry.fixed_tier
    if (quality is None) == (fixed is None):
        got = "neither" if quality is None else "both"
        yield place, f"needs exactly one of fixed_tier and quality, got {got}"
    if fixed is not None and fixed not in entry.ladder:
        yield (*place, "fixed_tier"), f"not in the ladder, got {fixed!r}"
    if quality is not None:
        if len(entry.ladder) < MIN_TIERS:
            rule = f"quality needs at least {MIN_TIERS} tiers to choose from, got "
            yield (*place, "ladder"), rule + str(list(entry.ladder))
        yield from _judge((*place, "quality", "evidence", "judge"), quality)


def _judge(place: Place, quality: QualityEntry) -> Iterator[Broken]:
    judge = quality.evidence.judge
    if judge.kind is JudgeKind.MODEL and not judge.address:
        yield place, "kind model needs an address, got none"
    if judge.kind is not JudgeKind.MODEL and judge.address:
        yield (
            (*place, "address"),
            f"only for kind model, got {judge.address!r} with {judge.kind}",
        )


def _sizes(place: Place, entry: RouteEntry) -> Iterator[Broken]:
    tokens, deadline, seconds = entry.output_tokens, entry.deadline, entry.limits.seconds
    if tokens.default > tokens.most:
        rule = f"more than most ({tokens.most}), got {tokens.default}"
        yield (*place, "output_tokens", "default"), rule
    if seconds is not None and seconds <= deadline.shortest_seconds:
        rule = f"refuses all, at most deadline.shortest_seconds ({deadline.shortest_seconds:g})"
        yield (*place, "limits", "seconds"), f"{rule}, got {seconds:g}"
