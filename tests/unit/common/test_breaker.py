"""A breaker opens after failures in a row, lets one trial through, and closes with a success."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.backoff import Backoff
from services.common.breaker import Breaker

REST = Backoff(1.0, 8.0)
NEW = Breaker(threshold=3, rest=REST)


def failing(breaker: Breaker, times: int, now: float) -> Breaker:
    for _ in range(times):
        breaker = breaker.failed(now)
    return breaker


def test_failures_short_of_the_threshold_leave_it_closed() -> None:
    breaker = failing(NEW, 2, 10.0)
    assert breaker.closed
    assert breaker.allows(10.0)
    assert failing(breaker.succeeded(), 2, 10.0).allows(10.0)  # they must come in a row


def test_it_opens_for_its_rest_and_then_lets_one_trial_through() -> None:
    breaker = failing(NEW, 3, 10.0)
    assert [breaker.allows(now) for now in (10.0, 10.9, 11.0)] == [False, False, True]
    trying = breaker.tried(11.0)
    assert not trying.allows(11.0)
    assert not trying.closed
    assert trying.succeeded() == NEW


def test_a_trial_that_fails_opens_it_for_longer_and_longer() -> None:
    breaker, now, rests = failing(NEW, 3, 10.0), 10.0, []
    for _ in range(5):
        rests.append(breaker.open_until - now)
        now = breaker.open_until
        breaker = breaker.tried(now).failed(now)
    assert rests == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_what_was_under_way_when_it_opened_says_nothing_new() -> None:
    breaker = failing(NEW, 3, 10.0)
    assert failing(breaker, 20, 10.5) == breaker


def test_a_trial_that_nobody_decides_gives_way_to_another() -> None:
    breaker = failing(NEW, 3, 10.0).tried(11.0)
    assert [breaker.allows(now) for now in (18.9, 19.0)] == [False, True]


def test_rests_are_spread_as_its_keeper_draws() -> None:
    assert Breaker(1, REST).failed(10.0, 0.0).open_until == 10.5


def test_a_closed_one_takes_no_note_of_uses() -> None:
    assert NEW.tried(5.0) is NEW
    assert NEW.succeeded() is NEW


@dataclass
class Model:
    """The same as a story: a state by name, and when that ends."""

    threshold: int
    state: str = "closed"
    in_a_row: int = 0
    opened: int = 0
    until: float = 0.0

    def allows(self, now: float) -> bool:
        return self.state == "closed" or now >= self.until

    def tried(self, now: float) -> None:
        if self.state != "closed":
            self.state, self.until = "half-open", now + REST.cap_seconds

    def failed(self, now: float) -> None:
        if self.state == "open" and now < self.until:
            return
        self.in_a_row += 1
        if self.state != "closed" or self.in_a_row == self.threshold:
            self.opened += 1
            self.state, self.until = "open", now + min(8.0, 2.0 ** (self.opened - 1))

    def succeeded(self) -> None:
        self.state, self.in_a_row, self.opened = "closed", 0, 0


events = st.one_of(
    st.sampled_from(["failed", "succeeded", "used"]), st.floats(0, 20, allow_nan=False)
)


@pytest.mark.parametrize("threshold", [1, 3])
@given(history=st.lists(st.one_of(events, st.just("failed")), max_size=60))
def test_every_history_is_as_the_model_has_it(threshold: int, history: list[str | float]) -> None:
    breaker, model, now = Breaker(threshold, REST), Model(threshold), 0.0
    for event in history:
        if isinstance(event, float):
            now += event
        elif event == "failed":
            breaker = breaker.failed(now)
            model.failed(now)
        elif event == "succeeded":
            breaker = breaker.succeeded()
            model.succeeded()
        elif breaker.allows(now):
            breaker = breaker.tried(now)
            model.tried(now)
        assert breaker.allows(now) == model.allows(now)
        assert breaker.closed == (model.state == "closed")
        assert breaker.open_until <= now + REST.cap_seconds


@given(history=st.lists(st.sampled_from(["failed", "used"]), max_size=30), now=st.floats(0, 1e6))
def test_however_it_failed_it_allows_a_trial_after_the_longest_rest(
    history: list[str], now: float
) -> None:
    breaker = Breaker(2, REST)
    for event in history:
        breaker = breaker.failed(now) if event == "failed" else breaker.tried(now)
    assert breaker.allows(now + REST.cap_seconds)
