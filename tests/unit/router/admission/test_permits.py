"""Leave to be in the router: a part for each tenant, settled once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import Overloaded
from services.router.admission.permits import Permit, Permits
from services.router.policy.permits import Crowd

LIMIT = Crowd(requests=8, bytes=1000)


def test_one_tenant_has_half_of_it_and_others_the_rest() -> None:
    permits = Permits(LIMIT)
    for _ in range(4):
        permits.enter("loud", 1)
    with pytest.raises(Overloaded) as caught:
        permits.enter("loud", 1)
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("TOO_MANY_REQUESTS", 1.0)
    for _ in range(3):
        permits.enter("quiet", 1)
    permits.enter("third", 1)
    with pytest.raises(Overloaded):  # everybody together
        permits.enter("fourth", 1)


def test_bytes_are_bounded_as_requests_are() -> None:
    permits = Permits(LIMIT)
    permits.enter("loud", 10_000)  # the largest may enter where nobody is
    with pytest.raises(Overloaded):
        permits.enter("loud", 1)
    with pytest.raises(Overloaded):
        permits.enter("quiet", 1)
    permits = Permits(LIMIT)
    held = [permits.enter("loud", 250) for _ in range(2)]
    with pytest.raises(Overloaded):
        permits.enter("loud", 1)
    permits.enter("quiet", 250)
    held[0].settle()
    permits.enter("loud", 1)


def test_a_permit_is_settled_once_however_its_block_ends() -> None:
    permits = Permits(Crowd(requests=2, bytes=1000))
    permit = permits.enter("a", 1)
    with pytest.raises(ValueError, match="x"), permit:
        raise ValueError("x")
    permit.settle()
    with permits.enter("a", 1), pytest.raises(Overloaded):
        permits.enter("a", 1)
    permits.enter("a", 1)


def test_ended_calls_that_are_not_read_take_the_room_of_their_tenant_alone() -> None:
    permits = Permits(Crowd(requests=2, bytes=1000, unread=3, unread_bytes=1000))
    ended = []
    for _ in range(3):
        with permits.enter("a", 900) as permit:
            ended.append(permit)
    with pytest.raises(Overloaded) as caught:
        permits.enter("a", 1)
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("TOO_MANY_UNREAD", 1.0)
    permits.enter("b", 1).settle()
    for _ in range(2):  # once, whatever is said twice
        ended[0].leave()
    permits.enter("a", 1).settle()
    with pytest.raises(Overloaded):
        permits.enter("a", 1)


def test_the_bytes_of_unread_ends_are_bounded_too() -> None:
    permits = Permits(Crowd(requests=8, unread=8, unread_bytes=1000))
    permit = permits.enter("a", 1)
    permit.settle(unread_bytes=1000)
    with pytest.raises(Overloaded):
        permits.enter("a", 1)
    permit.leave()
    permits.enter("a", 1)


def test_a_call_that_is_over_before_its_work_leaves_nothing_unread() -> None:
    permits = Permits(Crowd(requests=2, unread=1))
    permit = permits.enter("a", 1)
    permit.leave()
    with pytest.raises(Overloaded) as caught:  # the work still holds its permit
        permits.enter("a", 1)
    assert caught.value.reason == "TOO_MANY_REQUESTS"
    permit.settle(unread_bytes=5)
    permits.enter("a", 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 600), st.integers(0, 9))))
def test_what_is_held_is_what_the_open_permits_hold(
    steps: list[tuple[str, int, int]],
) -> None:
    permits = Permits(LIMIT)
    kept: list[tuple[str, int, Permit]] = []
    for tenant, size, gone in steps:
        while len(kept) > gone:
            kept.pop(0)[2].settle()
        mine = [one for one in kept if one[0] == tenant]
        room = (
            len(kept) < LIMIT.requests
            and sum(one[1] for one in kept) < LIMIT.bytes
            and len(mine) < LIMIT.requests // 2
            and sum(one[1] for one in mine) < LIMIT.bytes // 2
        )
        if room:
            kept.append((tenant, size, permits.enter(tenant, size)))
        else:
            with pytest.raises(Overloaded):
                permits.enter(tenant, size)
