"""The very decision core, as a policy of a simulated pool.

The pool tells what routers would. What only engines and a Prometheus know is not simulated:
`not_simulated` names what of a policy that is.
"""

from collections import Counter

from services.scaler.policy.sizing.settings import Measure, Scale
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Reading, Traffic, View
from services.scaler.simulator.fluid import Moment

TICK_SECONDS = 15.0
"""Of the setting the core's defaults were found with."""
UNKNOWN = frozenset({Measure.KV, Measure.ITL_SECONDS})
"""Measures that a simulated pool does not have."""


def not_simulated(scale: Scale) -> tuple[str, ...]:
    """Signals of a policy that a simulated pool does not have, by name."""
    measured = [measure.value for measure in scale.signals if measure in UNKNOWN]
    ruled = [rule.signal for rule in scale.rules if rule.signal in UNKNOWN]
    return tuple(dict.fromkeys([*measured, *scale.queries, *ruled]))


class Core:
    """Asks the core for each size, with what routers and targets would report.

    Attributes:
        bounds: how often each kind of constraint bound the size last.
    """

    def __init__(
        self,
        scale: Scale,
        *,
        size: int,
        places: int,
        start_seconds: float,
        tick: float = TICK_SECONDS,
        wall: float = 0.0,
        usd_per_hour: float = 0.0,
    ) -> None:
        """Begins with a pool.

        Args:
            scale: the policy.
            size: replicas at the beginning.
            places: requests that a replica runs at once.
            start_seconds: how long starts take, as measured.
            tick: seconds between decisions.
            wall: time at the beginning, in seconds since 1970.
            usd_per_hour: of a replica; 0: not known.
        """
        self.scale = scale
        self.tick = tick
        self.memory = SizeMemory(size)
        self.places = places
        self.start_seconds = start_seconds
        self.wall = wall
        self.usd_per_hour = usd_per_hour
        self.idle = 0.0
        self.bounds: Counter[str] = Counter()

    def size(self, moment: Moment) -> int:
        """Replicas wanted."""
        self.idle = 0.0 if busy(moment) else self.idle + moment.seconds
        view = view_of(
            moment,
            places=self.places,
            start_seconds=self.start_seconds,
            wall=self.wall + moment.now,
            usd_per_hour=self.usd_per_hour,
            idle=self.idle,
        )
        decision, self.memory = decide(self.scale, self.memory, view, worded=False)
        if decision.constraints:
            self.bounds[decision.constraints[-1].bound.value] += 1
        return decision.size


def busy(moment: Moment) -> bool:
    """Whether anything came, waits or runs."""
    return moment.arrivals > 0.0 or moment.running + moment.waiting > 0.5  # noqa: PLR2004


def view_of(
    moment: Moment,
    *,
    places: int,
    start_seconds: float,
    wall: float,
    usd_per_hour: float,
    idle: float,
    fits: int | None = None,
) -> View:
    """What routers and targets would report of a pool.

    Args:
        moment: the pool.
        places: requests that a replica runs at once.
        start_seconds: how long starts take, as measured.
        wall: seconds since 1970.
        usd_per_hour: of a replica; 0: not known.
        idle: seconds since the last request.
        fits: most replicas that there is room for; None: not known.
    """
    return View(
        now=moment.now,
        wall=wall,
        ready=moment.ready,
        starting=moment.starting,
        places=places,
        start_seconds=start_seconds,
        traffic=Traffic(
            seconds=moment.seconds,
            arrivals=moment.arrivals,
            prompt_tokens=moment.prompt,
            finished=moment.finished,
            output_tokens=moment.output,
            first_texts=moment.begun,
            late=moment.late,
            at=moment.now,
        ),
        waiting=moment.waiting,
        running=moment.running,
        readings=_readings(moment, places),
        fits=fits,
        usd_per_hour=usd_per_hour,
        # A request that finds no replica wakes the pool.
        woken=moment.ready == 0 and moment.waiting > 0.0,
        idle_seconds=idle,
        leaving=moment.leaving,
    )


def _readings(moment: Moment, places: int) -> dict[Measure | str, Reading]:
    """What routers say of the pool, as measures."""
    replicas = max(moment.ready, 1)
    prompt = moment.prompt / moment.arrivals if moment.arrivals > 0.0 else 0.0
    values: dict[Measure, float] = {
        Measure.WAITING: moment.waiting / replicas,
        Measure.QUEUED_TOKENS: moment.waiting * prompt / replicas,
        Measure.TOKENS_PER_SECOND: (moment.prompt + moment.output) / moment.seconds / replicas,
    }
    if moment.ready:
        values[Measure.RUNNING] = moment.running / (places * moment.ready)
    if moment.ttft is not None and moment.begun > 0.0:
        values[Measure.TTFT_SECONDS] = moment.ttft
    return {measure: Reading(value, moment.now) for measure, value in values.items()}
