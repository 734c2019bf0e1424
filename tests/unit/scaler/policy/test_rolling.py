"""New settings of a pool come one replica at a time, and never cost a replica that serves.

A pool is walked through time: its replicas start, become ready, fail, drain and end as drawn, and
after each step it is decided anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.replicas import (
    Failures,
    Goal,
    Observed,
    Patience,
    Retire,
    Start,
    State,
    Stop,
    after_failure,
    decide,
)

PATIENCE = Patience()
STEP_SECONDS = 1.0
STEPS = 120
"""In a third of them every walk has come to rest."""


@dataclass
class Walk:
    """A pool in time; a replica is of the settings that were in force when it was started."""

    goal: Goal
    settings: int = 0
    works: Callable[[int], bool] = lambda _: True
    now: float = 1000.0
    replicas: dict[str, Observed] = field(default_factory=dict)
    made_with: dict[str, int] = field(default_factory=dict)
    failures: dict[int, Failures] = field(default_factory=dict)
    made: int = 0
    least_ready: int = 10**6
    most_present: int = 0

    def __post_init__(self) -> None:
        for slot in range(self.goal.size):
            self._add(slot, State.READY)
        self.note()

    def ready(self, made_with: int | None = None) -> int:
        return sum(
            one.state is State.READY and made_with in (None, self.made_with[one.id])
            for one in self.replicas.values()
        )

    def note(self) -> None:
        self.least_ready = min(self.least_ready, self.ready())
        self.most_present = max(self.most_present, len(self.replicas))

    def step(self, draw: Callable[[int], int]) -> None:
        """One replica that can move may do so, as drawn; then time passes and it is decided."""
        movable = [one for one in self.replicas.values() if one.state is not State.READY]
        if movable:
            self._move(movable[draw(len(movable))], draw)
        self.now += STEP_SECONDS
        for one in list(self.replicas.values()):
            if one.state is State.READY:
                self.replicas[one.id] = replace(one, answered_at=self.now)
        self.decide()
        self.note()

    def decide(self) -> None:
        observed = [
            replace(one, outdated=self.made_with[one.id] != self.settings)
            for one in self.replicas.values()
        ]
        for action in decide(self.goal, observed, self.failures, PATIENCE, self.now):
            match action:
                case Start(slot):
                    self._add(slot, State.STARTING)
                case Retire(name):
                    self._become(name, State.DRAINING)
                case Stop(name, reason, failed):
                    if failed:
                        slot = self.replicas[name].slot
                        before = self.failures.get(slot)
                        self.failures[slot] = after_failure(before, 0, PATIENCE, self.now, reason)
                    self._become(name, State.ENDING)

    def _add(self, slot: int, state: State) -> None:
        assert all(one.slot != slot for one in self.replicas.values())
        self.made += 1
        name = f"r{self.made:04}"
        self.replicas[name] = Observed(name, slot, state, self.now, answered_at=self.now)
        self.made_with[name] = self.settings

    def _become(self, name: str, state: State) -> None:
        self.replicas[name] = replace(self.replicas[name], state=state, since=self.now)

    def _move(self, one: Observed, draw: Callable[[int], int]) -> None:
        if one.state is State.STARTING:
            if self.works(self.made_with[one.id]):
                self._become(one.id, State.READY)
            elif draw(2):
                self._become(one.id, State.BROKEN)
            # else it never becomes ready, until its time is over
        elif one.state is State.DRAINING:
            self.replicas[one.id] = replace(one, released=True)
        elif one.state is State.ENDING:
            del self.replicas[one.id]


@st.composite
def walks(draw, *, spare: int) -> Walk:
    size = draw(st.integers(1, 5))
    slots = size + (draw(st.integers(1, 4)) if spare else 0)
    return Walk(Goal(size, slots, start_seconds=5.0))


def _drawn(seed: int) -> Callable[[int], int]:
    state = seed

    def draw(among: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % among

    return draw


draws = st.integers(0, 2**60).map(_drawn)


def rolled(walk: Walk, draw: Callable[[int], int], steps: int = STEPS) -> Walk:
    walk.settings += 1
    walk.decide()
    walk.note()
    for _ in range(steps):
        walk.step(draw)
    return walk


@settings(max_examples=60)
@given(walks(spare=1), draws)
def test_with_a_slot_to_spare_no_serving_replica_is_missed_and_one_more_is_made(walk, draw):
    rolled(walk, draw)
    assert walk.least_ready == walk.goal.size
    assert walk.most_present <= walk.goal.size + 1
    assert walk.ready(made_with=1) == len(walk.replicas) == walk.goal.size


@settings(max_examples=60)
@given(walks(spare=0), draws)
def test_without_a_slot_to_spare_one_is_missed_at_a_time(walk, draw):
    rolled(walk, draw)
    assert walk.least_ready == walk.goal.size - 1
    assert walk.ready(made_with=1) == len(walk.replicas) == walk.goal.size


@settings(max_examples=60)
@given(walks(spare=1), draws)
def test_settings_that_fail_cost_no_replica_where_there_is_a_slot_to_spare(walk, draw):
    walk.works = lambda made_with: made_with == 0
    rolled(walk, draw)
    assert walk.least_ready == walk.goal.size
    assert walk.ready(made_with=0) == walk.goal.size


@settings(max_examples=60)
@given(walks(spare=0), draws)
def test_settings_that_fail_cost_one_replica_where_there_is_none(walk, draw):
    walk.works = lambda made_with: made_with == 0
    rolled(walk, draw)
    assert walk.least_ready == walk.goal.size - 1
    assert walk.ready(made_with=0) == walk.goal.size - 1


@settings(max_examples=60)
@given(walks(spare=1) | walks(spare=0), draws, st.integers(0, 40))
def test_going_back_to_the_settings_before_costs_no_more(walk, draw, tried):
    """As a rollout does that fails after some of its replicas were ready."""
    rolled(walk, draw, steps=tried)
    walk.settings = 0
    for _ in range(STEPS):
        walk.step(draw)
    spare = walk.goal.slots > walk.goal.size
    assert walk.least_ready >= walk.goal.size - (0 if spare else 1)
    assert walk.ready(made_with=0) == len(walk.replicas) == walk.goal.size


@settings(max_examples=60)
@given(walks(spare=1) | walks(spare=0), draws, st.lists(st.integers(0, 60), max_size=4))
def test_changes_in_the_middle_of_a_change_cost_no_more(walk, draw, pauses):
    spare = walk.goal.slots > walk.goal.size
    for pause in pauses:
        rolled(walk, draw, steps=pause)
    for _ in range(STEPS):
        walk.step(draw)
    assert walk.least_ready >= walk.goal.size - (0 if spare else 1)
    assert walk.ready(made_with=walk.settings) == len(walk.replicas) == walk.goal.size


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), draws, st.integers(0, 60), st.booleans())
def test_a_size_that_grows_in_the_middle_of_a_change_is_reached_and_costs_none(
    size, more, draw, pause, good
):
    walk = Walk(Goal(size, size + more + 1, start_seconds=5.0))
    if not good:
        walk.works = lambda made_with: made_with == 0
    rolled(walk, draw, steps=pause)
    walk.goal = replace(walk.goal, size=size + more)
    for _ in range(STEPS):
        walk.step(draw)
    assert walk.least_ready == size
    if good:
        assert walk.ready(made_with=1) == len(walk.replicas) == size + more
    else:
        assert walk.ready(made_with=0) == size, "the fleet goes back once one has failed"
