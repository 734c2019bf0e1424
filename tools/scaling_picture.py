"""Draws docs/scaling.svg: three policies on two made-up days, by the simulator that tries files.

`python -m tools.scaling_picture` draws it anew and prints the table that stands below it in
docs/scaling.md. Nothing of it was measured: the days are made up, with a course over the day, a
random walk and one burst, and the replica is one of made-up constants.
"""

from pathlib import Path

import numpy as np

from services.scaler.policy.sizing.settings import (
    Behavior,
    Capacity,
    Direction,
    Measure,
    Scale,
    Signal,
)
from services.scaler.simulator import page
from services.scaler.simulator.course import Course
from services.scaler.simulator.silicon import Floats
from services.scaler.simulator.traces import Rates
from services.scaler.simulator.trial import Replica, read_as, thinned, trial

PICTURE = Path(__file__).parent.parent / "docs" / "scaling.svg"
WINDOW_SECONDS = 60.0
WINDOWS = 2 * 1440
SEED = 5
REPLICA = Replica(
    Capacity(a=0.008, c=6.4e-8, p=2.4e-5),
    places=64,
    start_seconds=60.0,
    start_spread=0.2,
    usd_per_hour=2.5,
)
MOST = 8
POLICIES = {
    "fixed": Scale(min=4, max=4, work=None),
    "signals": Scale(
        max=MOST,
        work=None,
        signals={Measure.RUNNING: Signal(target=0.6)},
        behavior=Behavior(scale_down=Direction(stabilization_window_seconds=300.0)),
    ),
    "work": Scale(max=MOST),
}
TITLES = {
    "fixed": "`size: 4`",
    "signals": "`running: {target: 0.6}`, scale-down stabilised for 300 s",
    "work": "`work: {}`",
}
INK, PAPER = "#1f2937", "#ffffff"


def made_up() -> Rates:
    """Requests a second, minute by minute: afternoons, evenings, a walk, and one burst."""
    draw = np.random.default_rng(SEED)
    hour = (np.arange(WINDOWS) * WINDOW_SECONDS / 3600.0) % 24.0
    course = 9.0 + 27.0 * np.exp(-(((hour - 14.0) / 4.0) ** 2))
    course += 12.0 * np.exp(-(((hour - 20.0) / 1.5) ** 2))
    walk = np.zeros(WINDOWS)
    for at, step in enumerate(draw.normal(0.0, 0.02, WINDOWS - 1)):
        walk[at + 1] = 0.995 * walk[at] + step
    rate: Floats = course * np.exp(walk)
    burst = 1440 + 11 * 60
    rate[burst : burst + 25] *= 1.9
    return Rates(WINDOW_SECONDS, rate)


def courses() -> dict[str, Course]:
    """What each policy did."""
    trace = read_as(made_up(), REPLICA, seed=SEED)
    return {name: trial(scale, trace, tick=10.0) for name, scale in POLICIES.items()}


def table(found: dict[str, Course]) -> str:
    """The same in figures, as Markdown."""
    rows = [
        "| policy | replica-hours | cost | in time | changes | mean wait |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, course in found.items():
        rows.append(
            f"| {TITLES[name]} | {course.replica_hours:.1f} | ${course.usd or 0.0:.2f} | "
            f"{100 * course.attainment:.2f} % | {course.changes} | {1000 * course.wait:.0f} ms |"
        )
    return "\n".join(rows)


def picture(found: dict[str, Course]) -> str:
    """The drawing of the simulator's page, on paper of its own."""
    few = {name: thinned(course, page.MAX_POINTS) for name, course in found.items()}
    svg = page.picture(few)
    begin = svg.index(">") + 1
    paper = f'\n<rect width="100%" height="100%" fill="{PAPER}"/>'
    return (svg[:begin] + paper + svg[begin:]).replace("currentColor", INK) + "\n"


def main() -> None:
    """Draws it and prints the table."""
    found = courses()
    PICTURE.write_text(picture(found))
    print(table(found))


if __name__ == "__main__":
    main()
