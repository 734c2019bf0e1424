"""A pool request by request, iteration by iteration: what checks the fluid on single hours.

Each replica runs its engine's iterations one after another: one takes what a step costs anyway,
what each running request and each token of context adds, and what the tokens of prompts cost that
it reads, at most a chunk of them. A request goes to the ready replica with the fewest requests; the
line before the pool is taken from its front. Its first text comes at the end of the iteration that
reads the last of its prompt, then a token each iteration.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from services.scaler.simulator.course import Counts, Course, Ticks, course_of
from services.scaler.simulator.fluid import Moment, Pool, Sizer
from services.scaler.simulator.traces import Requests

CHUNK_TOKENS = 2048
"""Tokens of prompts that an iteration reads at most."""


@dataclass(eq=False)
class _Replica:
    """One engine.

    Attributes:
        prompts: tokens that are left of each prompt that is not read yet, and its request.
        ends: by iteration, the requests whose last token it makes.
        began: requests whose prompts the iteration under way reads to their end.
        running: requests whose answers are being made.
        context: tokens of these.
        iteration: number of the one under way.
        busy: an iteration is under way.
        leaves: takes nothing more, and is gone when it is empty.
    """

    prompts: deque[tuple[float, int]] = field(default_factory=deque)
    ends: dict[int, list[int]] = field(default_factory=dict)
    began: list[int] = field(default_factory=list)
    running: int = 0
    context: float = 0.0
    iteration: int = 0
    busy: bool = False
    leaves: bool = False

    @property
    def requests(self) -> int:
        return self.running + len(self.prompts) + len(self.began)


def run_tokens(pool: Pool, requests: Requests, sizer: Sizer) -> Course:
    """Serves single requests under a policy; costs and figures are those of `fluid`."""
    return _Tokens(pool, requests).run(sizer)


class _Tokens:
    def __init__(self, pool: Pool, requests: Requests) -> None:
        self.pool, serving = pool, pool.serving
        self.at: list[float] = (requests.timestamp / 1000.0).tolist()
        self.prompt: list[float] = requests.input_length.tolist()
        self.output: list[float] = requests.output_length.tolist()
        work = serving.work(requests.input_length, requests.output_length)
        self.work: list[float] = np.asarray(work).tolist()
        self.now = 0.0
        self.replicas = [_Replica() for _ in range(pool.size)]
        self.starting: list[tuple[float, float]] = []  # ready at, ordered at
        self.leaving = 0
        self.line: deque[int] = deque()
        self.events: list[tuple[float, int, _Replica]] = []
        self.order = 0
        self.counts = Counts()
        self.paid_until = 0.0
        self.sums = dict.fromkeys(("arrivals", "prompt", "work", "finished", "output"), 0.0)
        self.wait = 0.0
        self.warm = pool.warm

    def run(self, sizer: Sizer) -> Course:
        end = self.at[-1]
        told, sums = Counts(), dict(self.sums)
        before: Counts | None = None
        rows: list[tuple[float, ...]] = []
        came, tick = 0, sizer.tick
        while self.now < end:
            until = min(end, self.now + tick)
            seconds = until - self.now
            if before is None and self.now >= self.warm:
                before = self._mark()
            came = self._advance(until, came)
            counts = self._mark()
            grew = {name: self.sums[name] - sums[name] for name in sums}
            begun, late = counts.begun - told.begun, counts.late - told.late
            told, sums = counts, dict(self.sums)
            waiting, running = len(self.line), sum(one.requests for one in self.replicas)
            wanted = max(0, sizer.size(Moment(
                now=self.now, seconds=seconds, ready=len(self.replicas),
                starting=len(self.starting), waiting=waiting, running=running,
                load=waiting + running, work=grew["work"], arrivals=grew["arrivals"],
                prompt=grew["prompt"], finished=grew["finished"], output=grew["output"],
                begun=begun, late=late, leaving=self.leaving,
            )))  # fmt: skip
            rows.append(
                (self.now, wanted, len(self.replicas), len(self.starting), waiting, running,
                 grew["work"] / seconds, late / begun if begun else 0.0, self.wait, begun)
            )  # fmt: skip
            self._resize(wanted)
        overdue = sum(self.at[one] + self.pool.objective < end for one in self.line)
        return course_of(
            before or Counts(), self._mark(), Ticks(*np.array(rows).T), overdue=overdue,
            warm=self.warm, end=end, usd_per_hour=self.pool.usd_per_hour,
        )  # fmt: skip

    def _mark(self) -> Counts:
        self._pay()
        return Counts(**self.counts.__dict__)

    def _pay(self) -> None:
        there = len(self.replicas) + len(self.starting) + self.leaving
        self.counts.paid += there * (self.now - self.paid_until)
        self.paid_until = self.now

    def _advance(self, until: float, came: int) -> int:
        """Goes on to a time; gives back how many requests have come."""
        at, events, starting = self.at, self.events, self.starting
        never = float("inf")
        while True:
            arrival = at[came] if came < len(at) else never
            iteration = events[0][0] if events else never
            start = starting[0][0] if starting else never
            now = min(arrival, iteration, start)
            if now > until:
                self.now = until
                return came
            self.now = now
            if now == iteration:
                self._iterated(heapq.heappop(events)[2])
            elif now == start:
                self._pay()
                heapq.heappop(starting)
                self.replicas.append(_Replica())
                self._dispatch()
            else:
                self.sums["arrivals"] += 1
                self.sums["prompt"] += self.prompt[came]
                self.sums["work"] += self.work[came]
                self.line.append(came)
                came += 1
                if len(self.line) == 1:
                    self._dispatch()

    def _dispatch(self) -> None:
        while self.line and self.replicas:
            least = min(self.replicas, key=_requests)
            if least.requests >= self.pool.serving.places:
                return
            one = self.line.popleft()
            least.prompts.append((self.prompt[one], one))
            if not least.busy:
                self._iterate(least)

    def _iterate(self, replica: _Replica) -> None:
        """Begins an iteration."""
        one = self.pool.serving.capacity
        left = float(CHUNK_TOKENS)
        read = 0.0
        while replica.prompts and left > 0.0:
            tokens, number = replica.prompts[0]
            part = min(tokens, left)
            left -= part
            read += part
            if part < tokens:
                replica.prompts[0] = (tokens - part, number)
                break
            replica.prompts.popleft()
            replica.began.append(number)
        seconds = one.a + one.b * replica.running + one.c * replica.context + one.p * read
        replica.busy = True
        self.order += 1
        heapq.heappush(self.events, (self.now + seconds, self.order, replica))

    def _iterated(self, replica: _Replica) -> None:
        """An iteration has ended: a token for each that runs, the first text of those it began."""
        replica.iteration += 1
        replica.context += replica.running
        ended = replica.ends.pop(replica.iteration, [])
        for one in ended:
            replica.context -= self.prompt[one] + self.output[one]
        replica.running -= len(ended)
        for one in replica.began:
            self.counts.begun += 1
            self.wait = self.now - self.at[one]
            self.counts.late += self.wait > self.pool.objective
            more = int(self.output[one]) - 1
            if more > 0:
                replica.running += 1
                replica.context += self.prompt[one] + 1.0
                replica.ends.setdefault(replica.iteration + more, []).append(one)
            else:
                ended.append(one)
        self.sums["finished"] += len(ended)
        self.sums["output"] += sum(self.output[one] for one in ended)
        replica.began.clear()
        replica.busy = False
        if self.line and not replica.leaves:
            self._dispatch()
        if replica.requests and not replica.busy:
            self._iterate(replica)
        elif replica.leaves and not replica.requests:
            self._pay()
            self.leaving -= 1

    def _resize(self, wanted: int) -> None:
        self._pay()
        counts = self.counts
        change = wanted - len(self.replicas) - len(self.starting)
        counts.changes += change != 0
        for _ in range(change):
            seconds = self.pool.starts[counts.starts % len(self.pool.starts)]
            counts.starts += 1
            heapq.heappush(self.starting, (self.now + seconds, self.now))
        for _ in range(-change):
            counts.stops += 1
            if self.starting:
                newest = max(self.starting, key=lambda one: one[1])
                self.starting.remove(newest)
                heapq.heapify(self.starting)
                counts.wasted += self.now - newest[1]
            elif self.replicas:
                least = min(self.replicas, key=_requests)
                self.replicas.remove(least)
                if least.requests or least.busy:
                    least.leaves = True
                    self.leaving += 1


def _requests(replica: _Replica) -> int:
    return replica.requests
