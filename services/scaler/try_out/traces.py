"""One scaling file on a trace."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.config import ConfigError
from services.scaler.config import Scaling
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Simulation
from services.scaler.simulator.traces import parse_trace
from services.scaler.simulator.trial import USUAL_OUTPUT, USUAL_PROMPT, read_as, trial
from services.scaler.try_out.pools import (
    UNKNOWN_REPLICAS,
    Measured,
    Progress,
    Unanswerable,
    lengths_of,
    not_tried,
    read,
    replica_of,
    scale_of,
    shown,
)

SOURCE = "trace"


def simulated(
    *,
    given: str,
    source: str,
    pool: str,
    trace: str,
    times: float,
    load: Path,
    replicas: Mapping[str, Any],
    progress: Progress,
) -> Simulation:
    """What a file would have done with a trace.

    Args:
        given: the text of the file.
        source: names it in errors.
        pool: that serves it; empty: the only one with a `scale`.
        trace: text; see `services.scaler.simulator.traces`.
        times: as many requests.
        load: folder of the recorded load: requests of a trace without lengths are as long as those
            that the pool's tier had.
        replicas: what is known of each pool's, by name.
        progress: told the share that is done.

    Raises:
        Unanswerable: there is no such pool, nothing is known of its replicas, or the trace is none.
    """
    scaling = read(given, source)
    name = _named(scaling, pool)
    settings = scaling.pools[name]
    if wrong := not_tried(settings):
        raise Unanswerable(f"{name}: {wrong}")
    replica = replica_of(settings, Measured.of(replicas.get(name)))
    if replica is None:
        raise Unanswerable(f"{name}: {UNKNOWN_REPLICAS}")
    try:
        made = read_as(
            parse_trace(trace, SOURCE),
            replica,
            times=times,
            lengths=_lengths(load, settings.tier) or (USUAL_PROMPT, USUAL_OUTPUT),
        )
    except ConfigError as error:
        raise Unanswerable(f"{SOURCE}: {error.problems[0]}") from error
    except ValueError as error:
        raise Unanswerable(f"{SOURCE}: {error}") from error
    course = trial(scale_of(settings), made, tick=scaling.tick_seconds, progress=progress)
    requests = round(float(made.arrivals.count.sum()))
    return Simulation(name, shown(course), made.arrivals.seconds, requests)


def _lengths(load: Path, tier: str) -> tuple[float, float] | None:
    try:
        return lengths_of([one for one in recorded(load, 0) if one.tier == tier])
    except OSError as error:
        raise Unanswerable(f"the recorded load cannot be read: {error}") from error


def _named(scaling: Scaling, pool: str) -> str:
    sized = sorted(name for name, one in scaling.pools.items() if one.scale is not None)
    if not pool:
        if len(sized) == 1:
            return sized[0]
        there = ", ".join(sized) or "none"
        raise Unanswerable(
            f"say with --pool which pool serves the trace; with a scale there are: {there}"
        )
    if pool not in scaling.pools:
        there = ", ".join(sorted(scaling.pools))
        raise Unanswerable(f"there is no pool named {pool}; there are: {there}")
    return pool
