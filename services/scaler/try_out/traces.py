"""One pool of a scaling file on a trace: alone, without budgets and ceilings of money."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from services.common.config import ConfigError
from services.scaler.config import Scaling
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Baseline, Scene, Simulation
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.pools.pool import Pool
from services.scaler.simulator.arrivals import Generator
from services.scaler.simulator.course import Course
from services.scaler.simulator.page import Part, pages
from services.scaler.simulator.silicon import chosen, fit, parse_rows
from services.scaler.simulator.traces import Rates, parse_trace
from services.scaler.simulator.trial import (
    USUAL_OUTPUT,
    USUAL_PROMPT,
    Trace,
    read_as,
    trial,
)
from services.scaler.simulator.untuned import knobs_of, title_of, untuned
from services.scaler.try_out.pools import (
    UNKNOWN_REPLICAS,
    Measured,
    Progress,
    Unanswerable,
    assumed,
    known,
    lengths_of,
    not_tried,
    read,
    replica_of,
    scale_of,
    shown,
)

SOURCE, ROWS = "trace", "rows"

_GENERATED = {
    Generator.POISSON: "rates run straight between the middles of windows, counts are Poisson",
    Generator.STEPS: "rates jump at the ends of windows, gaps vary by twice their mean",
}


def simulated(
    *,
    given: str,
    source: str,
    scene: Scene,
    load: Path,
    replicas: Mapping[str, Any],
    progress: Progress,
) -> Simulation:
    """What a file would have done with a trace that one of its pools alone serves.

    Budgets and money do not hold it: what they leave is for all pools to share, and the trace says
    nothing of the others.

    Args:
        given: the text of the file.
        source: names it in errors.
        scene: what it is tried on.
        load: folder of the recorded load: requests of a trace without lengths are as long as those
            that the pool's tier had.
        replicas: what is known of each pool's, by name.
        progress: told the share that is done.

    Raises:
        Unanswerable: there is no such pool, nothing is known of its replicas, or the trace is none.
    """
    scaling = read(given, source)
    name = _named(scaling, scene.pool)
    settings = scaling.pools[name]
    if wrong := not_tried(settings):
        raise Unanswerable(f"{name}: {wrong}")
    measured = _measured(scene, replicas.get(name), settings)
    made, arrivals = _trace(scene, settings, measured, load, name)
    scale = scale_of(settings)
    runs = 1 + len(scene.beside)
    course = trial(
        scale, made, tick=scaling.tick_seconds, progress=lambda share: progress(share / runs)
    )
    others = {}
    for place, rule in enumerate(scene.beside, start=1):

        def told(share: float, place: int = place) -> None:
            progress((place + share) / runs)

        others[rule] = untuned(rule, scale, made, told)
    return Simulation(
        name,
        shown(course),
        made.arrivals.seconds,
        round(float(made.arrivals.count.sum())),
        assumed(made.replica, measured.sources),
        arrivals,
        tuple(
            Baseline(rule, title_of(rule, made), shown(one), knobs_of(rule, scale, made))
            for rule, one in others.items()
        ),
        _page(name, course, others, made, arrivals) if scene.page else "",
    )


def _measured(scene: Scene, said: Mapping[str, Any] | None, pool: Pool) -> Measured:
    """What its replicas are taken to be: rows first, then as for plans."""
    found = known(said, scene.replica, in_force=None, given=pool)
    if not scene.rows:
        return found
    capacity, source = _fitted(scene)
    return Measured(
        capacity, start_seconds=found.start_seconds, start_spread=found.start_spread, source=source
    )


def _fitted(scene: Scene) -> tuple[Capacity, str]:
    if find_spec("scipy") is None:
        raise Unanswerable("rows are fitted with scipy: install the extra `simulate`")
    try:
        rows = parse_rows(scene.rows, ROWS)
        some = chosen(rows, **scene.rows_of)
        found = fit(some)
    except ConfigError as error:
        raise Unanswerable(f"{ROWS}: {error.problems[0]}") from error
    except ValueError as error:
        raise Unanswerable(f"{ROWS}: {error}") from error
    labels = ", ".join(f"{column}={value}" for column, value in sorted(scene.rows_of.items()))
    off = f"off by {found.held_out:.1%} on rows left out"
    return found.capacity, f"{found.rows} rows of {labels or 'all'}, {off}"


def _trace(
    scene: Scene, pool: Pool, measured: Measured, load: Path, name: str
) -> tuple[Trace, str]:
    """The trace with what serves it, and how its requests came to be."""
    replica = replica_of(pool, measured)
    if replica is None:
        raise Unanswerable(f"{name}: {UNKNOWN_REPLICAS}")
    generator = Generator(scene.generator)
    try:
        trace = parse_trace(scene.trace, SOURCE)
        on_record = _lengths(load, pool.tier) if isinstance(trace, Rates) else None
        lengths = on_record or (USUAL_PROMPT, USUAL_OUTPUT)
        made = read_as(trace, replica, times=scene.times, lengths=lengths, generator=generator)
    except ConfigError as error:
        raise Unanswerable(f"{SOURCE}: {error.problems[0]}") from error
    except ValueError as error:
        raise Unanswerable(f"{SOURCE}: {error}") from error
    if not isinstance(trace, Rates):
        return made, "requests as the trace has them"
    prompt, output = lengths
    known_by = "as on record" if on_record else "as nothing is on record"
    tokens = f"of {prompt:,.0f} and {output:,.0f} tokens, {known_by}"
    return made, f"{generator}: {_GENERATED[generator]}; requests {tokens}"


def _page(name: str, course: Course, others: Mapping[str, Course], made: Trace, said: str) -> str:
    courses = {"the file": course}
    courses.update((f"{title_of(rule, made)} (untuned)", one) for rule, one in others.items())
    requests = f"{float(made.arrivals.count.sum()):,.0f} requests"
    note = f"Pool {name} alone, without budgets and ceilings of money, {requests}: {said}."
    return pages("A scaling file on a trace", note, [Part("", courses)])


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
