"""Places that a file sends texts to, or takes code from, and the one in force does not.

Who writes the file on the host may name any place. Who sends one over the network is trusted with
sizes and settings of what is there, not with where tenants' texts go or what runs on the host.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path

from services.common.files import resolved
from services.scaler.config import Scaling
from services.scaler.pools.pool import Pool

SETTING = "PENNYWEIGHT_SCALER_PLACES_ALLOWED"
SHOWN = 5
"""Places that a message names."""

Key = tuple[str | int, ...]

_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?|true|false")
"""Parameters that name nothing; any other may be a folder, or an environment that Triton runs."""


def new_places(
    given: Scaling, live: Scaling, home: Path, allowed: Collection[str]
) -> Iterator[tuple[Key, str]]:
    """The places that are new, with where they stand and what would be valid.

    A place is one of its tier: what may read the texts of one need not be fit for another's.

    Args:
        given: the file.
        live: the file in force.
        home: what repositories are relative to.
        allowed: places that any file may name; a folder stands for all below it.
    """
    tiers = {pool.tier for pool in live.pools.values()}
    known: dict[tuple[str, str], set[str]] = {}
    for pool in live.pools.values():
        for key, place in _places(pool, home):
            known.setdefault((pool.tier, str(key[0])), set()).add(place)
    for name, pool in given.pools.items():
        for key, place in _places(pool, home):
            there = known.get((pool.tier, str(key[0])), set())
            if place in there or _is_allowed(place, allowed):
                continue
            some = ", ".join(sorted(there)[:SHOWN]) + (", …" if len(there) > SHOWN else "")
            near = [] if pool.tier in tiers else get_close_matches(pool.tier, tiers, n=1)
            meant = f", did you mean tier {near[0]}?" if near else ""
            rule = f"must be what the file in force has there for tier {pool.tier}{meant}"
            otherwise = "anything else has to be written into the file on its host"
            yield (
                ("pools", name, *key),
                f"{rule} ({some or 'nothing'}) or one of {SETTING}; {otherwise}, got {place}",
            )


def _places(pool: Pool, home: Path) -> Iterator[tuple[Key, str]]:
    if pool.repository is not None:
        yield ("repository",), str(resolved(home / pool.repository / pool.model))
    for name, value in pool.parameters.items():
        if _PLAIN.fullmatch(value) is None:
            yield ("parameters", name), f"{name}={value}"
    if pool.kubernetes is not None:
        of = pool.kubernetes
        yield ("kubernetes", "name"), f"{of.namespace}/{of.kind}/{of.name}:{of.port}"
    if pool.external is not None:
        for index, address in enumerate(pool.external.addresses):
            yield ("external", "addresses", index), address
        if pool.external.dns is not None:
            yield ("external", "dns"), pool.external.dns
    if pool.spot_notice:
        yield ("spot_notice",), pool.spot_notice


def _is_allowed(place: str, allowed: Collection[str]) -> bool:
    if place in allowed:
        return True
    folders = [one for one in allowed if one.startswith("/")]
    return place.startswith("/") and any(Path(place).is_relative_to(one) for one in folders)
