"""The choice of a replica: what holds for any replicas, and for some."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from services.common.breaker import Breaker
from services.router.fleet.replica import WHOLE
from services.router.policy.replicas import choose_replica, least_loaded

NOW = 100.0


def resting(until: float) -> Breaker:
    """Of a replica that is avoided until then."""
    return replace(WHOLE, failures=1, open_until=until)


@dataclass(frozen=True)
class Candidate:
    """A replica as the choice sees it."""

    id: str
    in_flight: int
    max_in_flight: int
    breaker: Breaker = WHOLE


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8))
    return [
        Candidate(
            name,
            in_flight=draw(st.integers(0, 6)),
            max_in_flight=draw(st.integers(1, 5)),
            breaker=draw(
                st.sampled_from([WHOLE, resting(NOW - 1), resting(NOW), resting(NOW + 1)])
            ),
        )
        for name in names
    ]


avoided = st.sets(st.sampled_from("abcdefgh"))


def roomy(replicas: list[Candidate]) -> list[Candidate]:
    return [one for one in replicas if one.in_flight < one.max_in_flight]


def healthy(one: Candidate) -> bool:
    return one.breaker.allows(NOW)


@given(replicas=candidates())
def test_a_score_is_from_0_to_1(replicas: list[Candidate]) -> None:
    assert all(0.0 <= least_loaded(one) <= 1.0 for one in replicas)


@given(replicas=candidates(), avoid=avoided)
def test_only_a_replica_with_room_is_chosen_and_always_where_there_is_one(
    replicas: list[Candidate], avoid: set[str]
) -> None:
    chosen = choose_replica(replicas, now=NOW, avoid=avoid)
    assert (chosen in roomy(replicas)) if roomy(replicas) else (chosen is None)


@given(replicas=candidates(), avoid=avoided)
def test_an_avoided_or_failing_replica_is_the_last_resort(
    replicas: list[Candidate], avoid: set[str]
) -> None:
    chosen = choose_replica(replicas, now=NOW, avoid=avoid)
    if chosen is None:
        return
    if chosen.id in avoid:
        assert all(one.id in avoid for one in roomy(replicas))
    if not healthy(chosen):
        equals = [one for one in roomy(replicas) if (one.id in avoid) == (chosen.id in avoid)]
        assert not any(healthy(one) for one in equals)


@given(replicas=candidates(), avoid=avoided, data=st.data())
def test_the_order_of_the_replicas_does_not_matter(
    replicas: list[Candidate], avoid: set[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(replicas))
    first = choose_replica(replicas, now=NOW, avoid=avoid)
    assert choose_replica(shuffled, now=NOW, avoid=avoid) == first


@given(replicas=candidates())
def test_among_equals_the_least_loaded_wins(replicas: list[Candidate]) -> None:
    chosen = choose_replica(replicas, now=NOW)
    if chosen is not None:
        equals = [one for one in roomy(replicas) if healthy(one) == healthy(chosen)]
        assert least_loaded(chosen) == max(least_loaded(one) for one in equals)
        assert chosen.id == min(
            one.id for one in equals if least_loaded(one) == least_loaded(chosen)
        )


def test_the_least_loaded_is_the_one_with_the_largest_share_free() -> None:
    half, quarter = Candidate("a", 2, 4), Candidate("b", 2, 8)
    assert (least_loaded(half), least_loaded(quarter)) == (0.5, 0.75)
    assert choose_replica([half, quarter], now=NOW) == quarter


def test_a_failing_replica_is_back_when_its_time_is_over() -> None:
    busy, failing = Candidate("a", 3, 4), Candidate("b", 0, 4, breaker=resting(NOW))
    assert choose_replica([busy, failing], now=NOW - 0.01) == busy
    assert choose_replica([busy, failing], now=NOW) == failing
