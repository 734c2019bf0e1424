"""What of scaling.yaml is taken as it stands, though its author may have meant something else.

Pure. What is refused stands in `contradictions`.
"""

from collections.abc import Collection, Iterator, Mapping

from services.scaler.policy.sizing.contradictions import Described, Place, Problem
from services.scaler.policy.sizing.settings import Scale


def remarks(
    pools: Mapping[str, Described], empty: Collection[str] = (), *, queries: bool | None = None
) -> Iterator[Problem]:
    """What is to be said of pools that would be taken.

    Args:
        pools: by name.
        empty: those whose `scale` is there and says nothing.
        queries: whether somebody answers Prometheus queries; None: not known.

    Yields:
        the place and a sentence, where there is one with ", got " and the value at its end.
    """
    for name, pool in pools.items():
        place: Place = ("pools", name, "scale")
        if name in empty:
            yield (
                place,
                "is empty, so that the pool keeps its size; with `max` it follows its load",
            )
        if pool.scale is not None:
            yield from _of_scale(place, pool, pool.scale, queries=queries)


def _of_scale(
    place: Place, pool: Described, scale: Scale, *, queries: bool | None
) -> Iterator[Problem]:
    if scale.min == 0 and scale.zero is None:
        yield (*place, "min"), "counts as 1 without `zero`: one replica always stays, got 0"
    if scale.queries and queries is None:
        rule = "need a scaler with the setting PENNYWEIGHT_SCALER_PROMETHEUS; else it refuses them"
        yield (*place, "queries"), rule
    if pool.size is not None and not pool.least <= pool.size <= scale.max:
        kept = min(max(pool.size, pool.least), scale.max)
        rule = f"the pool begins with {kept}, as scale keeps it from {pool.least} to {scale.max}"
        yield (*place[:-1], "size"), f"{rule}, got {pool.size}"
