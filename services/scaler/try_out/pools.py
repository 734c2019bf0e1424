"""A pool as it is tried: what serves it, under which policy, and how it fared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from services.common.config import ConfigError, parse_document
from services.scaler.config import Scaling
from services.scaler.policy import plans
from services.scaler.policy.recorded import MINUTE_SECONDS, RecordedMinute
from services.scaler.policy.sizing.capacity import Fit, Learned
from services.scaler.policy.sizing.settings import Capacity, Scale
from services.scaler.pools.pool import Pool
from services.scaler.simulator.course import HOUR, Course
from services.scaler.simulator.silicon import scaled
from services.scaler.simulator.together import Which
from services.scaler.simulator.trial import (
    Recorded,
    Replica,
    Trace,
    not_simulated,
    recorded_trace,
)

USUAL_START_SECONDS = 60.0
ASKED, IN_FORCE, GIVEN = "asked for", "work.capacity of the file in force", "work.capacity"
"""Where constants come from, where they were not measured."""
NO_START = "the start is assumed"

UNKNOWN_REPLICAS = (
    "what its replicas can do is not known yet: it is learned from answers, or named by "
    "scale.work.capacity"
)

_FIT = TypeAdapter(Fit)

Progress = Callable[[float], None]


class Unanswerable(Exception):
    """What is asked cannot be tried."""


@dataclass(frozen=True)
class Measured:
    """What is known of a pool's replicas.

    Attributes:
        capacity: the four constants as they were learned; None: nothing was yet.
        correction: measured work by the model's.
        start_seconds: how long a start takes, the median; None: none was seen, nor is it named.
        start_spread: standard deviation of the logarithm of starts.
        source: where the constants come from, in a few words.
        learned: what the scaler knows, with which policies begin; nothing where the constants come
            from elsewhere: what a policy makes of those is its own affair.
    """

    capacity: Capacity | None = None
    correction: float = 1.0
    start_seconds: float | None = None
    start_spread: float = 0.0
    source: str = "measured"
    learned: Learned = field(default_factory=Learned)

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> "Measured":
        """As the scaler tells it; None: it tells nothing."""
        if said is None:
            return cls()
        constants = said.get("capacity")
        return cls(
            None if constants is None else Capacity(**constants),
            float(said.get("correction", 1.0)),
            None if (start := said.get("start_seconds")) is None else float(start),
            float(said.get("start_spread") or 0.0),
            learned=_learned(said),
        )

    def asked(self, said: Mapping[str, Any] | None) -> "Measured":
        """With what who asks says in its place; None: nothing is said."""
        if said is None:
            return self
        constants = said.get("capacity")
        found = self
        if constants is not None:
            found = replace(found.named(Capacity(**constants), ASKED), correction=1.0)
        start, spread = said.get("start_seconds"), said.get("start_spread")
        return replace(
            found,
            start_seconds=self.start_seconds if start is None else float(start),
            start_spread=self.start_spread if spread is None else float(spread),
        )

    @property
    def sources(self) -> str:
        """Where the constants come from, and that the start is assumed where it is."""
        return self.source if self.start_seconds is not None else f"{self.source}; {NO_START}"

    def named(self, capacity: Capacity, source: str) -> "Measured":
        """With constants that come from elsewhere."""
        return replace(self, capacity=capacity, source=source, learned=Learned())


def known(
    said: Mapping[str, Any] | None,
    asked: Mapping[str, Any] | None,
    *,
    in_force: Pool | None,
    given: Pool | None,
) -> Measured:
    """What replicas are taken to be, the same under every file that is tried.

    What who asks says comes first, then what the file in force names, so that a trial can be
    repeated, then what was measured, then what the other file names.
    """
    found = Measured.of(said)
    if (capacity := _named(in_force)) is not None:
        found = replace(found.named(capacity, IN_FORCE), correction=1.0)
    elif found.capacity is None and (capacity := _named(given)) is not None:
        found = found.named(capacity, GIVEN)
    return found.asked(asked)


def _learned(said: Mapping[str, Any]) -> Learned:
    """What the scaler learned, as it tells it."""
    constants, fit = said.get("capacity"), said.get("fit")
    if constants is None or fit is None:
        return Learned()
    found = _FIT.validate_python(fit)
    return Learned(float(said.get("correction", 1.0)), found, Capacity(**constants))


def _named(pool: Pool | None) -> Capacity | None:
    """The model that a pool's policy names."""
    return pool.scale.work.capacity if pool and pool.scale and pool.scale.work else None


def read(text: str, source: str) -> Scaling:
    """A scaling file's pools; the scaler has checked it.

    Raises:
        Unanswerable: it is none.
    """
    try:
        return parse_document(text, Scaling, source=source).content
    except ConfigError as error:
        raise Unanswerable(str(error)) from error


def scale_of(pool: Pool) -> Scale:
    """The pool's policy; a fixed size is one without room."""
    if pool.scale is not None:
        return pool.scale
    return Scale(min=pool.first, max=max(1, pool.first), work=None)


def replica_of(pool: Pool, measured: Measured) -> Replica | None:
    """What serves; None: it is not known."""
    if measured.capacity is None:
        return None
    return Replica(
        scaled(measured.capacity, measured.correction),
        pool.max_in_flight,
        USUAL_START_SECONDS if measured.start_seconds is None else measured.start_seconds,
        measured.start_spread,
        usd_per_hour=pool.usd_per_hour or None,
    )


def assumed(replica: Replica, source: str) -> plans.Assumed:
    """A replica in the words of plans."""
    return plans.Assumed(replica.capacity, replica.start_seconds, replica.start_spread, source)


def not_tried(pool: Pool) -> str:
    """Why its policy cannot be tried; empty: it can."""
    names = not_simulated(scale_of(pool))
    if not names:
        return ""
    return f"it follows what is not on record: {', '.join(names)}"


def trace_of(
    minutes: Sequence[RecordedMinute], replica: Replica, *, first: int, count: int
) -> Trace:
    """Recorded minutes of one tier; a minute that is not on record is one without a request.

    Args:
        minutes: of the tier.
        replica: what serves.
        first: the minute that it begins with, since 1970.
        count: how many minutes it has.

    Raises:
        ValueError: nothing came.
    """
    figures = np.zeros((4, count))
    for one in minutes:
        counted = one.arrivals, one.prompt_tokens, one.finished, one.output_tokens
        figures[:, one.minute - first] = np.array(counted) * (MINUTE_SECONDS / one.seconds)
    return recorded_trace(Recorded(float(MINUTE_SECONDS), *figures.tolist()), replica)


def lengths_of(minutes: Sequence[RecordedMinute]) -> tuple[float, float] | None:
    """Mean tokens of a prompt and of an answer; None: nothing is on record."""
    arrivals, finished = sum(one.arrivals for one in minutes), sum(one.finished for one in minutes)
    if not arrivals or not finished:
        return None
    prompt = sum(one.prompt_tokens for one in minutes) / arrivals
    output = sum(one.output_tokens for one in minutes) / finished
    return prompt, max(output, 1.0)


def shown(course: Course, bounds: Mapping[Which, float] = MappingProxyType({})) -> plans.Course:
    """A course in the words of plans, with what decided its sizes."""
    requests = course.requests
    return plans.Course(
        replica_hours=course.replica_hours,
        usd=course.usd or 0.0,
        attainment=course.attainment if requests > 0 else None,
        changes_per_hour=course.changes * HOUR / course.seconds,
        wasted_hours=course.wasted_hours,
        mean_wait_seconds=course.wait,
        max_size=_most([course]),
        bounds=tuple(
            plans.BoundShare(bound, detail, share)
            for (bound, detail), share in sorted(bounds.items(), key=lambda one: -one[1])
        ),
    )


def added(tiers: Sequence[Sequence[Course]]) -> plans.Course | None:
    """All pools together; None: there are none.

    Args:
        tiers: the courses of the pools of each, one at least.
    """
    if not tiers:
        return None
    every = [course for tier in tiers for course in tier]
    answers = [tier[0] for tier in tiers]  # which every pool of a tier tells alike
    requests = sum(one.requests for one in answers)

    def mean(values: Sequence[float]) -> float:
        weighed = sum(v * one.requests for v, one in zip(values, answers, strict=True))
        return weighed / requests if requests > 0 else 0.0

    return plans.Course(
        replica_hours=sum(one.replica_hours for one in every),
        usd=sum(one.usd or 0.0 for one in every),
        attainment=mean([one.attainment for one in answers]) if requests > 0 else None,
        changes_per_hour=sum(one.changes for one in every) * HOUR / every[0].seconds,
        wasted_hours=sum(one.wasted_hours for one in every),
        mean_wait_seconds=mean([one.wait for one in answers]),
        max_size=_most(every),
    )


def _most(courses: Sequence[Course]) -> int:
    """Most replicas at a decision that is scored; the courses are over the same decisions."""
    ticks = courses[0].ticks
    scored = ticks.at > float(ticks.at[-1]) - courses[0].seconds
    wanted = np.sum([one.ticks.wanted for one in courses], axis=0)
    return int(wanted[scored].max(initial=0.0))
