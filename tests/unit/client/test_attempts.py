"""When a call is tried again, and when its error is told: no network, no clock, no dice."""

import random
from dataclasses import dataclass

import grpc
import pytest

import pennyweight as pw
from pennyweight.attempts import Attempts, RetryBudget, away_of, may_be_tried_again, wait_seconds
from pennyweight.errors import PennyweightError, error_of

AWAY = error_of(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
REFUSED = error_of(grpc.StatusCode.UNAVAILABLE, "no room", reason="NO_REPLICA")
STOPPING = error_of(grpc.StatusCode.UNAVAILABLE, "this server is stopping", reason="STOPPING")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def attempts(
    clock: Clock, *, seconds: float = 20.0, chance: float = 0.5, tries: int | None = None
) -> Attempts:
    return Attempts(clock() + seconds, tries, RetryBudget(), clock=clock, chance=lambda: chance)


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (6, 2.0), (7, 2.0), (100_000, 2.0)],
)
def test_waits_are_drawn_from_a_doubling_range(failures: int, longest: float) -> None:
    assert wait_seconds(failures, 0.0) == 0.0
    assert wait_seconds(failures, 0.25) == pytest.approx(longest / 4)
    assert wait_seconds(failures, 1.0) == pytest.approx(longest)


def test_what_the_service_asks_for_is_waited_at_least_and_not_by_all_alike() -> None:
    assert wait_seconds(3, 0.0, asked_seconds=1.5) == 1.5
    assert wait_seconds(3, 0.5, asked_seconds=1.5) == pytest.approx(1.7)


@pytest.mark.parametrize("seed", range(50))
def test_a_router_that_is_away_for_5_seconds_is_survived_within_20(seed: int) -> None:
    clock, dice = Clock(), random.Random(seed)
    back = clock() + 5.0
    call = Attempts(clock() + 20.0, None, RetryBudget(), clock=clock, chance=dice.random)
    tries = 1
    while clock() < back:
        clock.now += 0.002  # a connection that is refused
        clock.now += call.next_delay(AWAY)
        tries += 1
    assert 5.0 <= clock() - 1000.0 < 7.1
    assert tries < 40
    assert call.seconds_left() > 12.9


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (error_of(grpc.StatusCode.CANCELLED, "CANCELLED"), grpc.StatusCode.UNAVAILABLE),
        (error_of(grpc.StatusCode.CANCELLED, "no", reason="STOP"), grpc.StatusCode.CANCELLED),
        (error_of(grpc.StatusCode.CANCELLED, "no", handle="h-1"), grpc.StatusCode.CANCELLED),
        (error_of(grpc.StatusCode.INTERNAL, "no"), grpc.StatusCode.INTERNAL),
    ],
)
def test_a_call_that_was_cancelled_without_a_reason_found_its_service_away(
    error: PennyweightError, code: grpc.StatusCode
) -> None:
    assert away_of(error).code is code


def test_tries_end_with_the_deadline() -> None:
    clock = Clock()
    call = attempts(clock)

    def try_on() -> None:
        while True:
            clock.now += call.next_delay(AWAY)

    with pytest.raises(pw.Unavailable):
        try_on()
    assert 18.0 < clock() - 1000.0 <= 20.0


def test_no_try_that_the_deadline_forbids() -> None:
    asked = error_of(grpc.StatusCode.UNAVAILABLE, "later", retry_after_seconds=30.0)
    with pytest.raises(pw.Unavailable, match="later"):
        attempts(Clock()).next_delay(asked)


def test_tries_end_with_their_number() -> None:
    call = attempts(Clock(), tries=3)
    call.next_delay(AWAY)
    call.next_delay(AWAY)
    with pytest.raises(pw.Unavailable):
        call.next_delay(AWAY)
    with pytest.raises(pw.Unavailable):
        attempts(Clock(), tries=1).next_delay(AWAY)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.UNAVAILABLE]
)
def test_only_unavailable_is_tried_again(code: grpc.StatusCode) -> None:
    with pytest.raises(pw.PennyweightError):
        attempts(Clock()).next_delay(error_of(code, "no"))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (AWAY, True),
        (STOPPING, True),
        (error_of(grpc.StatusCode.UNAVAILABLE, "lost", handle="h-1"), False),
        (
            error_of(grpc.StatusCode.UNAVAILABLE, "no room", handle="h-1", retry_after_seconds=1.0),
            True,
        ),
    ],
)
def test_what_may_have_been_charged_is_tried_again_only_if_the_router_asks(
    error: PennyweightError, *, again: bool
) -> None:
    assert may_be_tried_again(error) is again


@pytest.mark.parametrize(
    "said",
    [
        "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
        "Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: WRONG_VERSION_NUMBER",
        "Custom verification check failed with error: Hostname Verification Check failed.",
    ],
)
def test_no_waiting_mends_a_certificate(said: str) -> None:
    assert not may_be_tried_again(error_of(grpc.StatusCode.UNAVAILABLE, said))


def test_a_client_adds_little_load_to_a_router_that_refuses() -> None:
    budget, tries = RetryBudget(), 0
    for _ in range(1000):
        budget.earn()
        while budget.spend(REFUSED):
            tries += 1
    assert 200 <= tries <= 221  # a fifth of the calls, and what was saved up


def test_a_fresh_client_may_try_again_several_times() -> None:
    budget = RetryBudget()
    assert [budget.spend(REFUSED) for _ in range(21)] == [True] * 20 + [False]
    assert budget.spend(AWAY)  # nobody has work with a connection that fails
    assert budget.spend(STOPPING)


def test_a_spent_budget_tells_the_error_at_once() -> None:
    clock = Clock()
    budget = RetryBudget(left=0.0)
    call = Attempts(clock() + 20.0, None, budget, clock=clock, chance=lambda: 0.5)
    with pytest.raises(pw.Unavailable, match="no room"):
        call.next_delay(REFUSED)
