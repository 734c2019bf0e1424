"""A whole course: a pool of an engine that nobody described, under load that comes and goes."""

from random import Random

from services.scaler.policy.sizing.capacity import step_seconds, work
from services.scaler.policy.sizing.settings import Capacity, Scale, Work, Zero
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Traffic, View

TRUTH = Capacity(a=0.0202, b=0.00131, p=2e-4)
"""A small model on a CPU."""
PROMPT, OUTPUT, PLACES, START, TICK, STEP = 40, 30, 64, 3.0, 5.0, 0.1
BEST = 1 / work(TRUTH, PLACES, 1.0, PROMPT, OUTPUT)
LOADS = ((120, 0.3), (400, 0.7), (700, 2.2), (900, 0.1), (1200, 0.0), (1500, 0.5))
"""Until when, and full replicas' worth."""
POLICY = Scale(max=6, min=0, work=Work(window_seconds=30.0), zero=Zero(idle_seconds=60.0))


class Replicas:
    """Replicas that take their time to start, and a line before them."""

    def __init__(self) -> None:
        self.ready, self.starting = 1, []
        self.waiting = self.running = self.idle = 0.0
        self.came = self.done = self.late = 0.0

    def step(self, now: float, arrivals: int) -> None:
        self.starting = [at for at in self.starting if at > now or self._is_up()]
        self.came += arrivals
        self.waiting += arrivals
        if self.ready:
            taken = min(self.waiting, PLACES * self.ready - self.running)
            self.late += taken if self.waiting / (BEST * self.ready) > 2 else 0.0
            self.waiting -= taken
            self.running += taken
            each = max(self.running / self.ready, 0.01)
            done = self.running / (OUTPUT * step_seconds(TRUTH, each, PROMPT, OUTPUT)) * STEP
            done = min(done, self.running)
            self.running -= done
            self.done += done
        busy = arrivals or self.running > 0.5 or self.waiting
        self.idle = 0.0 if busy else self.idle + STEP

    def _is_up(self) -> bool:
        self.ready += 1
        return False

    def seen(self, now: float) -> View:
        traffic = Traffic(
            TICK, self.came, self.came * PROMPT, self.done, self.done * OUTPUT, self.done,
            self.late, now,
        )  # fmt: skip
        self.came = self.done = self.late = 0.0
        return View(
            now=now,
            wall=now,
            ready=self.ready,
            starting=len(self.starting),
            places=PLACES,
            start_seconds=START,
            traffic=traffic,
            waiting=self.waiting,
            running=self.running if self.running > 0.5 else 0.0,
            idle_seconds=self.idle,
            woken=self.waiting > 0 and not self.ready,
        )

    def resize(self, size: int, now: float) -> None:
        while self.ready + len(self.starting) < size:
            self.starting.append(now + START)
        while self.ready + len(self.starting) > size:
            if self.starting:
                self.starting.pop()
            else:
                self.running *= (self.ready - 1) / self.ready
                self.ready -= 1


def test_a_pool_of_an_unknown_engine_follows_its_load_to_zero_and_back():
    random, pool, memory = Random(2), Replicas(), SizeMemory(1)
    sizes, waits = {}, {}
    for step in range(1, 15_000):
        now = step * STEP
        rate = next(load for until, load in LOADS if now < until) * BEST * STEP
        pool.step(now, int(rate) + (random.random() < rate % 1))
        if step % round(TICK / STEP) == 0:
            decision, memory = decide(POLICY, memory, pool.seen(now))
            pool.resize(decision.size, now)
            sizes[round(now)], waits[round(now)] = decision.size, pool.waiting
    assert {sizes[at] for at in range(60, 400, 5)} == {1}
    assert {sizes[at] for at in range(430, 700, 5)} == {3}
    assert max(sizes.values()) <= 4
    assert {sizes[at] for at in range(740, 940, 5)} == {1}
    assert {sizes[at] for at in range(965, 1200, 5)} == {0}
    # Two: it has just seen demand grow to the threefold, and answers come late.
    assert {sizes[at] for at in range(1240, 1495, 5)} <= {1, 2}
    assert all(waits[at] == 0 for at in range(435, 1200, 5))
    model = memory.work.learned.capacity
    assert model is not None
    assert 0.8 < BEST * work(model, PLACES, 1.0, PROMPT, OUTPUT) < 1.2
