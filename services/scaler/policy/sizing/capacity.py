"""What a replica can do: the capacity model of four constants, learned and corrected online.

Pure. `Capacity` in `settings` has the constants. *Work* is measured in replica-seconds: what a
request takes of a replica whose places are all taken. A replica with all places taken does one
second of work in a second, one with fewer requests less, as each step then serves fewer.

The constants are learned by non-negative least squares on the relative error of a step's time, and
the direct correction compares what was done with what the model says at the measured occupancy.
Both take a stretch of time in which the number of ready replicas did not change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.policy.sizing.views import Traffic

LEAST_FINISHED = 10.0
"""Answers that a stretch has before anything is read from it: fewer are mostly chance."""
LEAST_SEEN = 4.0
"""Requests that were running at its ticks, together, before a stretch says how many run: they are
looked at only now and then, and between two looks a short answer comes and goes unseen."""
STRETCH_SECONDS = 600.0
"""A stretch with fewer answers is given up after this long; one with fewer that were seen running
counts as if it had so many, so that a replica is held for slower than it may be."""
SETTLE_TICKS = 1
"""Ticks after a change of the ready replicas that are left out: drained ones finish answers."""

CORRECTION_SECONDS = 120.0
CORRECTION_LEAST, CORRECTION_MOST = 0.4, 1.6
LEAST_OCCUPANCY = 1e-9
"""Requests on a replica: with fewer, what it could do is too near nothing to divide by."""
RATIO_LEAST, RATIO_MOST = 0.2, 3.0
"""One stretch says no less and no more than this."""

FIT_HALF_LIFE_SECONDS = 6 * 3600.0
SHAPE = (1.0, 0.03, 1e-5, 0.01)
"""Constants of an engine that nobody knows, but for their scale: what b, c and p are of a. From the
measured rows of Llama-3.1-8B on an H100 (b 0, c 8e-6, p 0.003) and of a small model on a CPU
(b 0.06), taken so that an engine gains rather little from many requests at once."""
SHAPE_WEIGHT = 4.0
"""Stretches that this shape counts for at first."""
SHAPE_STRETCHES = 20.0
"""After as many it counts for half, and ever less: what was seen then says more."""
SWEEPS = 3
"""Of the search, which goes on from stretch to stretch."""
STEP_LEAST_SECONDS, STEP_MOST_SECONDS = 1e-5, 60.0
STRANGE, STRANGE_MOST = 4.0, 5
"""A model that was off by such a factor in so many stretches one after another was learned from
something that is no more, or never was: it is learned anew."""
OUTLIER = math.log(2.0)

_Four = tuple[float, float, float, float]
_ZERO: _Four = (0.0, 0.0, 0.0, 0.0)


def step_seconds(capacity: Capacity, running: float, prompt: float, output: float) -> float:
    """Time of one step of a replica.

    Args:
        capacity: the model.
        running: requests on the replica.
        prompt: mean tokens of their prompts.
        output: mean tokens of their answers, at least 1.
    """
    context = prompt + output / 2
    by_request = capacity.b + capacity.c * context + capacity.p * prompt / output
    return capacity.a + running * by_request


def work(
    capacity: Capacity, places: int, requests: float, prompt_tokens: float, output: float
) -> float:
    """Work of some requests together, in replica-seconds.

    Args:
        capacity: the model.
        places: requests that a replica runs at once.
        requests: how many.
        prompt_tokens: of their prompts together.
        output: tokens that an answer is expected to have.
    """
    of_context = capacity.c * output * (prompt_tokens + requests * output / 2)
    by_request = output * (capacity.a / places + capacity.b)
    return capacity.p * prompt_tokens + requests * by_request + of_context


def busy(capacity: Capacity, places: int, running: float, prompt: float, output: float) -> float:
    """Work that a replica does in a second with so many requests running, 0 to 1."""
    running = min(running, places)
    full = step_seconds(capacity, places, prompt, output)
    return running * full / (places * step_seconds(capacity, running, prompt, output))


@dataclass(frozen=True, slots=True)
class Stretch:
    """What ready replicas did while their number did not change.

    Attributes:
        seconds: how long.
        replica_seconds: the same times the replicas.
        running_seconds: requests that ran times seconds.
        seen: requests that ran at its ticks, together.
        finished: answers that ended.
        output_tokens: of these.
    """

    seconds: float = 0.0
    replica_seconds: float = 0.0
    running_seconds: float = 0.0
    seen: float = 0.0
    finished: float = 0.0
    output_tokens: float = 0.0

    def longer(self, traffic: Traffic, ready: int, running: float) -> "Stretch":
        """With one tick more."""
        seconds = traffic.seconds
        return Stretch(
            self.seconds + seconds,
            self.replica_seconds + seconds * ready,
            self.running_seconds + seconds * running,
            self.seen + running,
            self.finished + traffic.finished,
            self.output_tokens + traffic.output_tokens,
        )


_NO_STRETCH = Stretch()


@dataclass(frozen=True, slots=True)
class Fit:
    """Least squares so far: sums over stretches, and where the last search ended."""

    gram: tuple[_Four, _Four, _Four, _Four] = (_ZERO, _ZERO, _ZERO, _ZERO)
    aims: _Four = _ZERO
    weight: float = 0.0
    constants: _Four = _ZERO

    @property
    def capacity(self) -> Capacity | None:
        """The model; None: nothing was seen yet."""
        a, b, c, p = self.constants
        return Capacity(a=a, b=b, c=c, p=p) if self.weight and a > 0 else None


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a pool's replicas.

    Attributes:
        correction: measured work by the model's.
        fit: of the constants; unused where the policy names them.
        capacity: the learned model, if anything was learned.
        stretch: what goes on.
        ready: replicas in it.
        settling: ticks that are still left out.
        running: requests at its last tick; None: not known.
        strange: stretches one after another that the learned model does not fit at all.
    """

    correction: float = 1.0
    fit: Fit = field(default_factory=Fit)
    capacity: Capacity | None = None
    stretch: Stretch = _NO_STRETCH
    ready: int = 0
    settling: int = 0
    running: float | None = None
    strange: int = 0

    def at(
        self,
        ready: int,
        running: float | None,
        *,
        stretch: Stretch = _NO_STRETCH,
        settling: int = 0,
    ) -> "Learned":
        """After a tick that taught nothing by itself."""
        return Learned(
            self.correction,
            self.fit,
            self.capacity,
            stretch,
            ready,
            settling,
            running,
            self.strange,
        )

    def unseen(self) -> "Learned":
        """After a time in which nobody said what replicas did."""
        return replace(self, stretch=_NO_STRETCH, running=None)


def learn(
    before: Learned,
    given: Capacity | None,
    traffic: Traffic,
    *,
    places: int,
    ready: int,
    running: float | None,
    prompt: float,
) -> Learned:
    """What is known after one tick more.

    Args:
        before: what was known.
        given: the policy's model; None: it is to be learned.
        traffic: of this tick.
        places: requests that a replica runs at once.
        ready: replicas that run them.
        running: requests that run now; None: not known, and nothing is learned.
        prompt: mean tokens of a prompt.
    """
    if ready != before.ready or running is None or before.running is None or ready == 0:
        return before.at(ready, running, settling=SETTLE_TICKS)
    if before.settling:
        return before.at(ready, running, settling=before.settling - 1)
    stretch = before.stretch.longer(traffic, ready, (running + before.running) / 2)
    long = stretch.seconds >= STRETCH_SECONDS
    if stretch.finished < LEAST_FINISHED or (stretch.seen < LEAST_SEEN and not long):
        given_up = long and stretch.finished < LEAST_FINISHED
        return before.at(ready, running, stretch=_NO_STRETCH if given_up else stretch)
    return _learned(before, given, stretch, places, prompt).at(ready, running)


def _learned(
    before: Learned, given: Capacity | None, stretch: Stretch, places: int, prompt: float
) -> Learned:
    """What a stretch teaches."""
    occupancy = stretch.running_seconds / stretch.replica_seconds
    output = stretch.output_tokens / stretch.finished
    if occupancy < LEAST_OCCUPANCY or output < 1:
        return before
    occupancy *= max(LEAST_SEEN / stretch.seen, 1.0)
    correction, fit, capacity, strange = before.correction, before.fit, before.capacity, 0
    if given is None:
        step = occupancy * stretch.replica_seconds / stretch.output_tokens
        step = min(max(step, STEP_LEAST_SECONDS), STEP_MOST_SECONDS)
        if capacity is not None:
            said = step_seconds(capacity, occupancy, prompt, output)
            strange = before.strange + 1 if not said / STRANGE < step < said * STRANGE else 0
        if strange >= STRANGE_MOST:
            correction, fit, strange = 1.0, Fit(), 0
        fit = fitted(fit, occupancy, prompt, output, step=step, seconds=stretch.seconds)
        capacity = fit.capacity
    model = given or capacity
    if model is not None:
        done = work(model, places, stretch.finished, prompt * stretch.finished, output)
        doable = stretch.replica_seconds * busy(model, places, occupancy, prompt, output)
        correction = _corrected(correction, done / doable, stretch.seconds)
    return replace(before, correction=correction, fit=fit, capacity=capacity, strange=strange)


def _corrected(before: float, ratio: float, seconds: float) -> float:
    part = 1 - math.exp(-seconds / CORRECTION_SECONDS)
    after = before + part * (min(max(ratio, RATIO_LEAST), RATIO_MOST) - before)
    return min(max(after, CORRECTION_LEAST), CORRECTION_MOST)


def fitted(
    before: Fit, running: float, prompt: float, output: float, *, step: float, seconds: float
) -> Fit:
    """The fit with one stretch more.

    Non-negative least squares on the relative error, by coordinate descent from where the last one
    ended, held near `SHAPE` while little was seen. A stretch that is off by more than a factor of
    two counts less once the fit stands.

    Args:
        before: the fit.
        running: mean requests on a replica.
        prompt: mean tokens of a prompt.
        output: mean tokens of an answer.
        step: measured seconds of a step.
        seconds: how long the stretch was.
    """
    context = prompt + output / 2
    features = (1.0, running, running * context, running * prompt / output)
    weight = 1.0
    if before.weight >= LEAST_FINISHED:
        said = _dot(before.constants, features)
        off = abs(math.log(step / said)) if said > 0 else 0.0
        weight = min(1.0, OUTLIER / off) if off else 1.0
    kept = 0.5 ** (seconds / FIT_HALF_LIFE_SECONDS)
    relative = [feature / step for feature in features]
    weighted = [weight * value for value in relative]
    gram = [
        [kept * was + own * other for was, other in zip(row, relative, strict=True)]
        for row, own in zip(before.gram, weighted, strict=True)
    ]
    aims = [kept * was + own for was, own in zip(before.aims, weighted, strict=True)]
    shape = [_dot(row, SHAPE) for row in gram]
    scale = _dot(aims, SHAPE) / _dot(shape, SHAPE)
    usual = [scale * share for share in SHAPE]
    pull_share = SHAPE_WEIGHT / (1 + before.weight / SHAPE_STRETCHES)
    pulls = [pull_share / value**2 for value in usual]
    found = list(before.constants) if before.weight else list(usual)
    for _ in range(SWEEPS):
        for i in range(4):
            row, pull = gram[i], pulls[i]
            others = _dot(row, found) - row[i] * found[i]
            found[i] = max((aims[i] - others + pull * usual[i]) / (row[i] + pull), 0.0)
    found[0] = min(max(found[0], 1e-6), 60.0)
    return Fit(
        gram=(_four(gram[0]), _four(gram[1]), _four(gram[2]), _four(gram[3])),
        aims=_four(aims),
        weight=kept * before.weight + weight,
        constants=_four([found[0], min(found[1], 60.0), min(found[2], 1.0), min(found[3], 1.0)]),
    )


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2] + first[3] * second[3]


def _four(values: list[float]) -> _Four:
    return values[0], values[1], values[2], values[3]
