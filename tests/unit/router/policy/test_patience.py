"""How long a silence may last, whether another try needs the time, and what it proves."""

import pytest

from services.router.policy.patience import is_held_against, shared, usual
from tests.making.policies import tier

SMALL = tier("small", first_token_seconds=20.0, idle_seconds=10.0)


@pytest.mark.parametrize(
    ("streams", "most", "begun", "seconds"),
    [
        (True, 256, False, 20.0),
        (False, 63, False, 20.0),
        (False, 64, False, 30.0),
        (False, 256, False, 60.0),
        (True, 256, True, 10.0),
        (False, 256, True, 10.0),
    ],
)
def test_what_is_usual_depends_on_what_is_waited_for(
    *, streams: bool, most: int, begun: bool, seconds: float
) -> None:
    assert usual(SMALL, streams=streams, most=most, begun=begun) == seconds


@pytest.mark.parametrize(
    ("left", "slow", "seconds"),
    [
        (30.0, 0.0, 15.0),  # the default deadline leaves half of it for another try
        (30.0, 5.0, 15.0),
        (30.0, 12.0, 24.0),  # such answers take long: half would end the good ones too
        (600.0, 0.0, 30.0),  # never longer than is usual
        (1.0, 0.0, 0.5),
        (0.0, 0.0, 30.0),  # too late for another try
        (-1.0, 0.0, 30.0),
    ],
)
def test_a_silent_replica_gets_a_share_of_the_time_left(
    left: float, slow: float, seconds: float
) -> None:
    assert shared(SMALL, 30.0, left=left, slow=slow) == seconds


def test_a_tier_may_name_another_share() -> None:
    assert shared(tier(silent_share=0.25), 30.0, left=40.0, slow=0.0) == 10.0
    assert shared(tier(silent_share=1.0), 30.0, left=20.0, slow=0.0) == 20.0


@pytest.mark.parametrize(
    ("left", "slow", "seconds"),
    [
        (30.0, 0.5, 2.0),  # long enough to tell for any answer
        (30.0, 4.0, 8.0),
        (30.0, 0.0, 15.0),  # nobody knows how long answers take
        (2.0, 0.5, 1.0),
    ],
)
def test_a_replica_that_failed_before_is_tried_with_little_patience(
    left: float, slow: float, seconds: float
) -> None:
    assert shared(SMALL, 30.0, left=left, slow=slow, doubted=True) == seconds


@pytest.mark.parametrize(
    ("seconds", "usual_seconds", "slow", "held"),
    [
        (1.9, 20.0, 0.0, False),  # only a caller in a hurry calls that silent
        (2.0, 20.0, 0.0, True),
        (5.0, 20.0, 4.0, False),  # nearly all answers take at most 4 s, this may be one of them
        (8.0, 20.0, 4.0, True),
        (20.0, 20.0, 15.0, True),  # longer than the tier allows
        (0.3, 0.3, 0.0, True),  # a tier of which a word is expected sooner
    ],
)
def test_only_a_silence_that_is_long_for_anybody_is_held_against_a_replica(
    *, seconds: float, usual_seconds: float, slow: float, held: bool
) -> None:
    assert is_held_against(seconds, usual_seconds=usual_seconds, slow=slow) is held
