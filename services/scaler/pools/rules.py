"""What must hold between the keys of pools, and between pools: places, ports, workloads, counts.

Each rule gives what is wrong, with where it stands. Leaves to `policy.sizing.contradictions` what
is said of sizes, and to `models` what models' folders hold.
"""

from collections.abc import Collection, Iterator, Mapping

from services.scaler.policy.sizing.contradictions import Described
from services.scaler.pools.places import Problem, wrong_external
from services.scaler.pools.pool import Capacity, Pool

Pools = Mapping[str, Pool]
"""By name."""

MOST_REPLICAS = 4096
"""Of all pools together: a round over them takes some 50 ms, five times a second."""
MOST_SLOTS = 1024
"""Of all pools together."""
MOST_SERVERS = 512
"""Addresses of all external pools together: each is asked every second."""
MOST_RULES = 2048
MOST_SCHEDULES = 512
"""Of all pools together: all may begin or end at one tick."""
MOST_QUERIES = 256
"""Of all pools together: all are asked every ten seconds."""

PLACES = ("slots", "kubernetes", "external")


def wrong_places(pools: Pools) -> Iterator[Problem]:
    """Pools that are in no place or in several, and keys that their place has no use for."""
    for name, pool in pools.items():
        key = ("pools", name)
        places = [place for place in PLACES if getattr(pool, place)]
        if not places:
            yield key, f"must have one of {', '.join(PLACES)}"
        for place in places[1:]:
            yield (*key, place), f"must not stand beside {places[0]}: a pool has one place"
        for local in ("repository", "parameters"):
            if getattr(pool, local) and places[:1] not in ([], ["slots"]):
                rule = f"must not stand beside {places[0]}: it is of pools on slots alone"
                yield (*key, local), rule
        if pool.external is not None:
            yield from wrong_external(name, pool.external)
            for sized in ("size", "scale"):
                if getattr(pool, sized) is not None:
                    yield (
                        (*key, sized),
                        "must not stand beside external: its servers are as they are",
                    )
        if pool.slots and pool.repository is None:
            yield (*key, "repository"), "is missing: replicas on slots need one"


def too_many(pools: Pools) -> Iterator[Problem]:
    """What each pool may have and all together may not: rounds and ticks go over all of them."""
    every = pools.values()
    scales = [pool.scale for pool in every if pool.scale is not None]
    totals = (
        (MOST_REPLICAS, "replicas (scale.max, size or addresses)", [p.most for p in every]),
        (MOST_SLOTS, "slots", [len(p.slots) for p in every]),
        (
            MOST_SERVERS,
            "external addresses",
            [len(p.external.addresses) for p in every if p.external is not None],
        ),
        (MOST_RULES, "rules", [len(one.rules) for one in scales]),
        (MOST_SCHEDULES, "schedules", [len(one.schedule) for one in scales]),
        (MOST_QUERIES, "queries", [len(one.queries) for one in scales]),
    )
    for most, what, counts in totals:
        if sum(counts) > most:
            rule = f"must have at most {most:,} {what} together"
            yield ("pools",), f"{rule}, got {sum(counts):,}"


def shared_workloads(pools: Pools) -> Iterator[Problem]:
    """Workloads of several pools: each would set its own number of replicas, for ever."""
    taken: dict[tuple[str, str, str], str] = {}
    for name, pool in pools.items():
        if (place := pool.kubernetes) is None:
            continue
        workload = (place.kind, place.namespace, place.name)
        first = taken.setdefault(workload, name)
        if first != name:
            rule = f"must be a workload of its own, pool {first} has it too"
            yield (
                ("pools", name, "kubernetes", "name"),
                f"{rule}, got {place.kind} {place.namespace}/{place.name}",
            )


def long_drains(pools: Pools) -> Iterator[Problem]:
    """Spot capacity that is gone before its replicas have drained."""
    for name, pool in pools.items():
        if pool.capacity is Capacity.SPOT and pool.drain_seconds > pool.notice_seconds:
            rule = f"must be at most notice_seconds, {pool.notice_seconds:g}, on spot"
            yield ("pools", name, "drain_seconds"), f"{rule}, got {pool.drain_seconds:g}"


def shared_ports(pools: Pools) -> Iterator[Problem]:
    """Ports that two servers of this host would listen on."""
    taken: dict[int, str] = {}
    for name, pool in pools.items():
        for index, slot in enumerate(pool.slots):
            for key in ("grpc_port", "metrics_port"):
                port = getattr(slot, key)
                place = ("pools", name, "slots", index, key)
                if port and port in taken:
                    yield place, f"must be a port of its own, got {port}, as in {taken[port]}"
                taken.setdefault(port, ".".join(map(str, place)))


def wrong_cores(pools: Pools, cores: Collection[int] | None) -> Iterator[Problem]:
    """Cores that are not there, or named twice. `cores` are those there are; None: not known."""
    for name, pool in pools.items():
        for index, slot in enumerate(pool.slots):
            place = ("pools", name, "slots", index, "cpus")
            if len(set(slot.cpus)) < len(slot.cpus):
                yield place, f"names a core twice, got {list(slot.cpus)}"
            absent = [] if cores is None else sorted(set(slot.cpus) - set(cores))
            if cores is not None and absent:
                rule = f"must be cores that this machine has, {in_ranges(cores)}"
                yield place, f"{rule}, got {in_ranges(absent)}"


def wrong_gpus(pools: Pools, gpus: Collection[int] | None) -> Iterator[Problem]:
    """GPUs that are not there, and those of more than one slot: a model fills the memory of its."""
    taken: dict[int, str] = {}
    for name, pool in pools.items():
        for index, slot in enumerate(pool.slots):
            place = ("pools", name, "slots", index, "gpus")
            for gpu in slot.gpus:
                if gpu in taken:
                    yield place, f"must be GPUs of its own, got {gpu}, as in {taken[gpu]}"
                taken.setdefault(gpu, ".".join(map(str, place)))
            absent = [] if gpus is None else sorted(set(slot.gpus) - set(gpus))
            if gpus is not None and absent:
                rule = f"must be GPUs that this machine has, {in_ranges(gpus) or 'which are none'}"
                yield place, f"{rule}, got {in_ranges(absent)}"


def described(pool: Pool) -> Described:
    """A pool for the rules of sizes."""
    return Described(
        tier=pool.tier,
        model=(pool.model, pool.precision),
        spot=pool.capacity is Capacity.SPOT,
        room=len(pool.slots) or None,
        size=pool.size if pool.external is None else 0,
        least=pool.least,
        scale=pool.scale,
        usd_per_hour=pool.usd_per_hour,
    )


def strangers(pools: Pools, tiers: Collection[tuple[str, str, str]]) -> Iterator[Problem]:
    """Pools that serve no tier, and tiers that no pool serves: what routers make nothing of.

    Args:
        pools: by name.
        tiers: name, model and precision of each tier that routers know.
    """
    served = {(pool.tier, pool.model, pool.precision) for pool in pools.values()}
    by_name = {name: (model, precision) for name, model, precision in tiers}
    for name, pool in pools.items():
        if pool.tier not in by_name:
            known = ", ".join(sorted(by_name))
            rule = f"must be a tier of the routes ({known}), got {pool.tier}"
            yield ("pools", name, "tier"), rule
            continue
        for key, wanted in zip(("model", "precision"), by_name[pool.tier], strict=True):
            if getattr(pool, key) != wanted:
                yield (
                    ("pools", name, key),
                    f"must be the {key} of tier {pool.tier}, {wanted}, got {getattr(pool, key)}",
                )
    for tier, model, precision in tiers:
        if (tier, model, precision) not in served:
            rule = f"must serve tier {tier} of the routes, {model} {precision}; none does"
            yield ("pools",), rule


def in_ranges(numbers: Collection[int]) -> str:
    """Numbers as text, those in a row as one: ``0-3, 8``."""
    rows: list[list[int]] = []
    for number in sorted(set(numbers)):
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)
