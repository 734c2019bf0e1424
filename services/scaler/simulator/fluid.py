"""A pool as a fluid: in each step work runs off, comes, and takes the places that are free.

With N requests running on R replicas a step of the engine takes ``a + slope*N/R``, so
``N / (output * that)`` requests a second are finished, by the lengths that came lately; the line is
taken from its front up to ``places*R`` running. Which requests are late follows exactly from two
curves, what has arrived and what has been admitted by a time: those who are admitted after the
curve of arrivals, shifted by the objective, has passed them. Arrivals are weighed by their work,
since the work of a request drifts.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.course import Counts, Course, Ticks, course_of
from services.scaler.simulator.silicon import Floats, Serving
from services.scaler.simulator.starts import Starts

Progress = Callable[[float], None]
"""Told the share that is done."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a policy sees of the pool.

    Attributes:
        now: seconds since the trace began.
        seconds: since the moment before.
        ready, starting: replicas.
        waiting, running: requests.
        load: mean of running and waiting since the moment before, in requests of mean work.
        work: what arrived since then, in requests of mean work.
        arrivals, prompt: requests that arrived, and their tokens.
        finished, output: answers that ended, and their tokens.
        begun, late: answers that began, and those of them that came late.
        ttft: seconds to the first text of the request that was admitted last; None: not told.
        leaving: replicas that drain.
    """

    now: float
    seconds: float
    ready: int
    starting: int
    waiting: float
    running: float
    load: float
    work: float
    arrivals: float
    prompt: float
    finished: float
    output: float
    begun: float
    late: float
    ttft: float | None = None
    leaving: int = 0

    def part(
        self, ready: int, starting: int, leaving: int, *, share: float, runs: float
    ) -> "Moment":
        """What one of several pools that serve the line sees.

        Args:
            ready: its replicas.
            starting: those on their way.
            leaving: those that end what runs on them.
            share: of what comes and waits that is its.
            runs: share of what runs that runs on it.
        """
        return replace(
            self, ready=ready, starting=starting, leaving=leaving, running=self.running * runs,
            waiting=self.waiting * share, load=self.load * share, work=self.work * share,
            arrivals=self.arrivals * share, prompt=self.prompt * share,
            finished=self.finished * share, output=self.output * share,
            begun=self.begun * share, late=self.late * share,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """What came between two decisions.

    Attributes:
        moment: what a policy sees at its end.
        begun: answers begun, in requests of mean work.
        late: share of them that came late.
    """

    moment: Moment
    begun: float
    late: float

    def row(self, wanted: int, ready: int, starting: int) -> tuple[float, ...]:
        """A row of `Ticks`, with what was decided of so many replicas."""
        one = self.moment
        return (
            one.now, wanted, ready, starting, one.waiting, one.running, one.work / one.seconds,
            self.late, one.ttft or 0.0, self.begun,
        )  # fmt: skip


class Sizer(Protocol):
    """What says the size."""

    @property
    def tick(self) -> float:
        """Seconds between two decisions."""

    def size(self, moment: Moment) -> int:
        """Replicas wanted, starting ones included."""


@dataclass(frozen=True)
class Pool:
    """What a run begins with.

    Attributes:
        serving: what a replica is.
        objective: seconds to the first text.
        starts: seconds that starts take, used in turn.
        size: replicas that are ready at the beginning.
        warm: seconds at the beginning that are not scored.
        usd_per_hour: of a replica; None: not known.
    """

    serving: Serving
    objective: float
    starts: Sequence[float]
    size: int
    warm: float = 0.0
    usd_per_hour: float | None = None

    @property
    def first_text(self) -> float:
        """Seconds from a place to the first text, on a full replica."""
        one = self.serving
        return (
            one.capacity.a + one.slope * one.places + one.capacity.p * one.prompt
        )  # fmt: skip


def run(pool: Pool, arrivals: Arrivals, sizer: Sizer, progress: Progress | None = None) -> Course:
    """Serves a trace under a policy."""
    return Running(pool, arrivals).run(sizer, progress)


def due_curve(pool: Pool, arrivals: Arrivals) -> Floats:
    """By step: what has to be admitted by its middle, as all that arrived an objective before."""
    edges = np.arange(len(arrivals.work) + 1) * arrivals.step
    arrived = np.concatenate([[0.0], np.cumsum(arrivals.work)])
    # Nobody waits less than a step here, whose mean wait is none.
    wait = max(pool.objective - pool.first_text, 0.5 * arrivals.step)
    return np.interp(edges[:-1] + 0.5 * arrivals.step - wait, edges, arrived, left=0.0)


MIX_SECONDS = 10.0
"""About as long as requests run: what runs is like what came in this time."""


@dataclass(frozen=True)
class Mix:
    """What replicas are like, step by step, under the requests that came lately.

    Attributes:
        places: work, in requests of the mean size, that takes all places of a replica.
        fixed: steps of the trace in which a request alone is finished.
        slope: that each request of the mean size on the replica adds to these.
    """

    places: Floats
    fixed: Floats
    slope: Floats


def mix_of(serving: Serving, arrivals: Arrivals) -> Mix:
    """Replicas under what comes; lengths that do not change give figures that do not either.

    Where requests are longer than the mean, fewer of them are as much work, and each stays longer.
    """
    steps = max(1, round(MIX_SECONDS / arrivals.step))

    def lately(values: Floats) -> Floats:
        summed = np.concatenate([[0.0], np.cumsum(values)])
        ends = np.arange(1, len(values) + 1)
        return np.asarray(summed[ends] - summed[np.maximum(ends - steps, 0)])

    count = lately(arrivals.count)
    some = count > 0.5  # noqa: PLR2004 - half a request: rounding apart, one
    per = np.maximum(count, 1.0)
    one = serving.capacity
    output = np.where(some, lately(arrivals.output) / per, serving.output)
    prompt = np.where(some, lately(arrivals.prompt) / per, serving.prompt)
    work = np.where(some, lately(arrivals.work) / per, 1.0)
    output = np.asarray(np.maximum(output, 1.0), float)
    work = np.asarray(np.maximum(work, 1e-6), float)
    each = one.b + one.c * (prompt + output / 2.0) + one.p * prompt / output
    step = arrivals.step
    return Mix(float(serving.places) * work, output * one.a / step, output * each / work / step)


class Running:
    """One run on its way.

    Attributes:
        at: steps that are done, of `steps`.
        ready: replicas.
        worth: of the mean one of them, in those that the pool's figures are of.
        starting: those on their way.
        leaving: those that drain: the step each is gone at, and its requests.
        running: requests.
        admitted, finished: requests that have begun and ended since the trace began.
        counts: what the run took so far.
    """

    def __init__(self, pool: Pool, arrivals: Arrivals) -> None:
        self.pool = pool
        self.step = arrivals.step
        self.steps = len(arrivals.work)
        arrived = np.concatenate([[0.0], np.cumsum(arrivals.work)])
        self.arrived: list[float] = arrived.tolist()
        self.due: list[float] = due_curve(pool, arrivals).tolist()
        self.totals = tuple(
            np.concatenate([[0.0], np.cumsum(one)]).tolist()
            for one in (arrivals.count, arrivals.prompt, arrivals.output)
        )
        mix = mix_of(pool.serving, arrivals)
        self.places: list[float] = mix.places.tolist()
        self.fixed: list[float] = mix.fixed.tolist()
        self.slope: list[float] = mix.slope.tolist()
        full = mix.fixed + mix.slope * mix.places
        # What places take in one step where requests end within it; 0: they stay longer.
        self.quick: list[float] = np.where(full < 1.0, mix.places / full, 0.0).tolist()
        self.at = 0
        self.ready = pool.size
        self.worth = 1.0
        self.leaving: deque[tuple[int, float]] = deque()  # gone at, requests
        self.running = 0.0
        self.admitted = 0.0
        self.finished = 0.0
        self.load = 0.0
        self.counts = Counts()
        self.starting = Starts(pool.starts, self.step, self.counts)
        self._told = self._seen(), 0.0, 0.0

    def run(self, sizer: Sizer, progress: Progress | None) -> Course:
        """The whole trace under a policy."""
        tick = max(1, round(sizer.tick / self.step))
        warm = round(self.pool.warm / self.step)
        before: Counts | None = None
        rows: list[tuple[float, ...]] = []
        while self.at < self.steps:
            if before is None and self.at >= warm:
                before = self.mark()
            turn = self.turn(min(self.steps, self.at + tick))
            wanted = max(0, sizer.size(turn.moment))
            rows.append(turn.row(wanted, self.ready, len(self.starting)))
            self._resize(wanted)
            if progress is not None:
                progress(self.at / self.steps)
        ticks = Ticks(*np.array(rows).T)
        return course_of(
            before or Counts(), self.counts, ticks, overdue=self.overdue, warm=self.pool.warm,
            end=self.steps * self.step, usd_per_hour=self.pool.usd_per_hour,
        )  # fmt: skip

    def turn(self, end: int) -> "Turn":
        """Goes on to a step, at which a decision is due."""
        begin, self.load = self.at, 0.0
        seen_before, begun_before, late_before = self._told
        self.advance(end)
        now, seconds = self.at * self.step, (self.at - begin) * self.step
        seen = self._seen()
        self._told = seen, self.counts.begun, self.counts.late
        begun, late = self.counts.begun - begun_before, self.counts.late - late_before
        heads = seen[3] - seen_before[3]
        share = late / begun if begun > 0.0 else 0.0
        moment = Moment(
            now=now, seconds=seconds, ready=self.ready, starting=len(self.starting),
            waiting=seen[0] - seen[3], running=seen[3] - seen[4],
            load=self.load * self.step / seconds,
            work=self.arrived[self.at] - self.arrived[begin],
            arrivals=seen[0] - seen_before[0], prompt=seen[1] - seen_before[1],
            finished=seen[4] - seen_before[4], output=seen[5] - seen_before[5],
            begun=heads, late=heads * share,
            ttft=self._wait() + self.pool.first_text, leaving=len(self.leaving),
        )  # fmt: skip
        return Turn(moment, begun, share)

    @property
    def inside(self) -> float:
        """Requests in the pool."""
        return self.arrived[self.at] - self.admitted + self.running

    @property
    def overdue(self) -> float:
        """Requests that wait and are late already, at the end of the trace."""
        return max(0.0, self.due[-1] - self.admitted)

    def mark(self) -> Counts:
        """What it took so far, kept."""
        return replace(self.counts)

    def shift(self, change: int, *, start: float) -> None:
        """So many ready replicas more or fewer at once; a start that was ordered ahead is paid."""
        if change > 0:
            self.ready += change
            self.counts.paid += change * start
        for _ in range(min(-change, self.ready)):
            self.counts.paid += self.drain()

    def lose(self) -> None:
        """A ready replica is gone at once; what ran on it waits again, ahead of all others."""
        share = self.running / self.ready
        self.running -= share
        self.admitted -= share
        self.counts.begun -= share
        self.ready -= 1
        # It is told as if it had never begun.
        self._told = self._seen(), self.counts.begun, self.counts.late

    def advance(self, end: int) -> None:
        """Goes on to a step, with each start that ends on the way."""
        while self.at < end:
            self.ready += self.starting.come(self.at)
            until = self.starting.until(end)
            self.counts.paid += (self.ready + len(self.starting)) * (until - self.at) * self.step
            self._serve(until)
        while self.leaving and self.leaving[0][0] <= self.at:
            self.finished += self.leaving.popleft()[1]

    def _serve(self, until: int) -> None:
        """The steps to `until`, with the replicas that are ready now."""
        arrived, due = self.arrived, self.due
        places, fixed, slope, quick = self.places, self.fixed, self.slope, self.quick
        ready, running, admitted = self.ready * self.worth, self.running, self.admitted
        begun = late = finished = load = 0.0
        for at in range(self.at, until):
            if ready:
                step = fixed[at] + slope[at] * running / ready
                done = running / step if step > 1.0 else running
                running -= done
                finished += done
            waiting = arrived[at + 1] - admitted
            taken = (quick[at] or places[at]) * ready - running
            if taken > waiting:  # noqa: PLR1730 - a call in this loop costs more than the rest
                taken = waiting
            load += waiting + running
            if taken > 0.0:
                overdue = due[at] - admitted
                if overdue > 0.0:
                    late += overdue if overdue < taken else taken  # noqa: FURB136 - the same
                admitted += taken
                begun += taken
                if quick[at]:  # by Little's law this many are there at the step's end
                    stays = taken * fixed[at] / (1.0 - slope[at] * taken / ready)
                    finished += taken - stays
                    load += stays - taken
                    running += stays
                else:
                    running += taken
        self.at = until
        self.running, self.admitted, self.load = running, admitted, self.load + load
        self.finished += finished
        self.counts.begun += begun
        self.counts.late += late

    def _resize(self, wanted: int) -> None:
        for _ in range(self.starting.resize(wanted - self.ready - len(self.starting), self.at)):
            self.counts.paid += self.drain()

    def drain(self, worth: float = 1.0) -> float:
        """Takes a replica out; gives the seconds that it stays until its requests are done.

        Args:
            worth: of the replica, in those that the pool's figures are of.
        """
        load = self.running / (self.ready * self.worth)
        at = max(self.at - 1, 0)
        stays = self.step * (self.fixed[at] + self.slope[at] * load)
        self.leaving.append((self.at + max(1, round(stays / self.step)), load * worth))
        self.running -= load * worth
        self.ready -= 1
        return stays

    def _seen(self) -> tuple[float, ...]:
        """Requests, prompts' and answers' tokens that came; begun, finished, finished's tokens."""
        requests, _, output = self.totals
        came = tuple(one[self.at] for one in self.totals)
        return (
            *came,
            self._at(requests, self.admitted),
            self._at(requests, self.finished),
            self._at(output, self.finished),
        )

    def _at(self, curve: list[float], work: float) -> float:
        """A curve where so much work, in the order of its arrival, is behind."""
        i = bisect_right(self.arrived, work, 0, self.at + 1) - 1
        if i >= self.at:
            return curve[self.at]
        inside = (work - self.arrived[i]) / (self.arrived[i + 1] - self.arrived[i])
        return curve[i] + inside * (curve[i + 1] - curve[i])

    def _wait(self) -> float:
        """Seconds that the request admitted last has waited."""
        i = bisect_right(self.arrived, self.admitted, 0, self.at + 1) - 1
        if i >= self.at:
            return 0.0
        grows = self.arrived[i + 1] - self.arrived[i]
        inside = (self.admitted - self.arrived[i]) / grows
        return max(0.0, (self.at - i - inside - 1.0) * self.step)
