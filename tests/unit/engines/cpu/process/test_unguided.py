"""What steps take that follow no guide."""

from engines.cpu.process.unguided import Answering


def test_nothing_is_allowed_where_nothing_is_known() -> None:
    assert Answering().allowed(1, 100) == 0


def test_twice_what_steps_of_the_like_take_is_allowed() -> None:
    answering = Answering()
    for _ in range(200):
        answering.learn(10_000, 2, 300)
    answering.bound(3_000, 2, 300)
    answering.learn(26_000, 3, 400)
    assert answering.allowed(2, 400) == answering.allowed(3, 400) == 22_000


def test_a_slow_step_that_follows_a_guide_allows_no_more_than_a_fast_one_shows() -> None:
    answering = Answering()
    answering.bound(10_000, 1, 100)
    answering.bound(900_000, 1, 100)
    answering.bound(900_000, 2, 2000)
    assert answering.allowed(1, 100) == 20_000
    assert answering.allowed(1, 100 * 16) == 16 * 20_000
    assert answering.allowed(2, 2000) == 16 * 20_000, "sixteen times as far back"


def test_more_answers_and_longer_ones_may_take_as_many_times_more_and_fewer_as_much() -> None:
    answering = Answering()
    answering.learn(10_000, 2, 300)
    assert answering.allowed(8, 300) == 4 * 20_000
    assert answering.allowed(8, 2400) == 8 * 20_000
    assert answering.allowed(1, 10) == 20_000
