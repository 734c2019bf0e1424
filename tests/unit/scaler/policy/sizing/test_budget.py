"""What pools share: nobody over the limit, nobody starved, the important first, then by turns."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.budget import (
    Claim,
    Grant,
    Limit,
    granted,
    limits_of,
    priorities_of,
)
from services.scaler.policy.sizing.money import (
    DAY_SECONDS,
    KEPT_DAYS,
    Day,
    Spent,
    ceilings,
    spent,
)
from services.scaler.policy.sizing.settings import Budget, BudgetShare, Money, Resource
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, decide_all
from services.scaler.policy.sizing.views import Bound
from tests.making.sizing import scale, view

POOLS = "abcdef"


def budget(limit: float, **shares: tuple[int, float]) -> Budget:
    return Budget(
        of=Resource.GPUS,
        limit=limit,
        pools={
            pool: BudgetShare(priority=priority, each=each)
            for pool, (priority, each) in shares.items()
        },
    )


def shared(claims: dict[str, tuple[int, int]], **budgets: Budget) -> dict[str, int]:
    asked = {pool: Claim(wished, least) for pool, (wished, least) in claims.items()}
    grants = granted(asked, limits_of(budgets), priorities_of(budgets))
    return {pool: grant.size for pool, grant in grants.items()}


def test_where_there_is_enough_everybody_gets_what_they_wish():
    limits = limits_of({"g": budget(5, a=(0, 1), b=(0, 1))})
    found = granted({"a": Claim(3, 1), "b": Claim(2, 1)}, limits, {})
    assert found == {"a": Grant(3), "b": Grant(2)}


def test_by_turns_within_a_priority():
    gpus = budget(7, a=(0, 1), b=(0, 1), c=(0, 1))
    assert shared({"a": (9, 0), "b": (9, 0), "c": (1, 0)}, g=gpus) == {"a": 3, "b": 3, "c": 1}


def test_a_higher_priority_first_but_after_the_least_of_all():
    gpus = budget(6, a=(0, 1), b=(10, 1))
    assert shared({"a": (4, 2), "b": (9, 1)}, g=gpus) == {"a": 2, "b": 4}


def test_the_least_sizes_too_go_by_priority_where_not_all_fit():
    gpus = budget(3, a=(0, 1), b=(10, 1))
    assert shared({"a": (4, 2), "b": (9, 2)}, g=gpus) == {"a": 1, "b": 2}


def test_a_large_replica_that_does_not_fit_leaves_room_for_small_ones():
    gpus = budget(7, a=(5, 4), b=(0, 1))
    assert shared({"a": (2, 1), "b": (5, 1)}, g=gpus) == {"a": 1, "b": 3}


def test_a_pool_in_several_budgets_needs_room_in_all():
    found = shared(
        {"a": (5, 1), "b": (5, 1)},
        gpus=budget(6, a=(0, 1), b=(0, 1)),
        watts=budget(1500, a=(0, 700), b=(0, 100)),
    )
    assert found == {"a": 2, "b": 1}  # by turns, until the watts are gone


def test_a_pool_in_none_is_left_alone():
    assert shared({"a": (5, 1), "z": (9, 1)}, g=budget(2, a=(0, 1))) == {"a": 2, "z": 9}


budgets = st.builds(
    Budget,
    of=st.just(Resource.GPUS),
    limit=st.floats(0.5, 40),
    pools=st.dictionaries(
        st.sampled_from(POOLS),
        st.builds(
            BudgetShare, priority=st.integers(0, 3), each=st.sampled_from((0.1, 1.0, 2.0, 7.3))
        ),
        min_size=1,
    ),
)
claims = st.dictionaries(
    st.sampled_from(POOLS),
    st.tuples(st.integers(0, 12), st.integers(0, 4)).map(lambda pair: Claim(pair[0], min(pair))),
    min_size=1,
)


@settings(deadline=None)
@given(claims, st.dictionaries(st.sampled_from("xyz"), budgets, max_size=3))
def test_no_budget_is_exceeded_nobody_starves_and_no_room_is_left_unused(asked, found):
    grants = granted(asked, limits_of(found), priorities_of(found))
    assert grants.keys() == asked.keys()
    left = {
        name: one.limit
        - sum(share.each * grants[pool].size for pool, share in one.pools.items() if pool in grants)
        for name, one in found.items()
    }
    assert all(rest >= -1e-6 * found[name].limit for name, rest in left.items())

    def fits(pool: str) -> bool:
        return all(
            one.pools[pool].each <= left[name] - 1e-6
            for name, one in found.items()
            if pool in one.pools
        )

    for pool, grant in grants.items():
        assert 0 <= grant.size <= asked[pool].wished
        if grant.size < asked[pool].wished:
            assert not fits(pool)
            assert grant.short is not None
            assert grant.short.size == grant.size
        if grant.size < asked[pool].least:
            # Only pools of the same or a higher priority, or those in other budgets, go beyond
            # their least.
            ranks = priorities_of(found)
            rivals = {other for one in found.values() if pool in one.pools for other in one.pools}
            beyond = [
                other
                for other in rivals & grants.keys()
                if grants[other].size > asked[other].least and ranks[other] <= ranks[pool]
            ]
            assert all(
                any(
                    one.pools[pool].each > one.pools[other].each
                    for one in found.values()
                    if pool in one.pools and other in one.pools
                )
                or len(found) > 1
                for other in beyond
            )


def test_what_is_spent_is_counted_from_midnight():
    now = spent(Spent(), 36.0, now=7.0, wall=10 * DAY_SECONDS + 100.0)
    assert now.usd == 0.0
    now = spent(now, 36.0, now=107.0, wall=10 * DAY_SECONDS + 200.0)
    assert now.usd == 1.0
    late = Spent((Day(10, 50.0, 600.0),), 11 * DAY_SECONDS - 60.0, at=500.0)
    early = spent(late, 36.0, now=600.0, wall=11 * DAY_SECONDS + 40.0)
    assert (early.usd, early.days) == (0.4, (Day(10, 50.6, 660.0), Day(11, 0.4, 40.0)))


def test_a_clock_that_goes_back_gives_no_money_back_and_a_jump_costs_little():
    now = Spent((Day(10, 50.0),), 10 * DAY_SECONDS + 100.0)
    assert spent(now, 36.0, now=0.0, wall=9 * DAY_SECONDS).usd == 50.0
    ahead = spent(now, 36.0, now=0.0, wall=10 * DAY_SECONDS + 50_000.0)
    assert ahead.usd == 50.0 + 36.0 * 300 / 3600  # nobody knows how long the scaler was away


def ran(before: Spent, since: float, seconds: float) -> Spent:
    """What is spent where a USD a minute is, from one time of the clock on."""
    start = 0.0 if before.at is None else before.at
    for passed in range(0, int(seconds) + 1, 60):
        before = spent(before, 60.0, now=start + passed, wall=since + passed)
    return before


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-10, 400), st.integers(-43_000, 43_000), st.floats(0.1, 100.0)),
        max_size=60,
    )
)
def test_wherever_the_clock_jumps_to_all_is_counted_once_it_is_right_again(jumps):
    begin = 10 * DAY_SECONDS + 43_200.0
    now, before = 500.0, spent(Spent(), 0.0, now=500.0, wall=begin)
    for days, seconds, passed in jumps:
        now += passed
        before = spent(before, 36.0, now=now, wall=begin + now + days * DAY_SECONDS + seconds)
        assert len(before.days) <= KEPT_DAYS
    right = spent(before, 36.0, now=now + 1.0, wall=begin + now + 1.0)
    assert right.usd == pytest.approx((now + 1.0 - 500.0) / 100)


def test_a_clock_that_is_stepped_back_at_every_tick_loses_nothing():
    before, wall = Spent(), 10 * DAY_SECONDS
    for tick in range(361):
        wall += -9.0 if tick % 2 else 10.0
        before = spent(before, 36.0, now=10.0 * tick, wall=wall)
    assert before.usd == pytest.approx(36.0)


def test_days_that_are_over_are_forgotten_and_the_last_one_never_soon():
    before = ran(Spent(), 10 * DAY_SECONDS, 20.5 * DAY_SECONDS)
    assert [one.day for one in before.days][-3:] == [28, 29, 30]
    assert [one.usd for one in before.days][-3:] == pytest.approx([1440.0, 1440.0, 720.0])
    assert len(before.days) <= 4
    back = spent(before, 0.0, now=before.at or 0.0, wall=30 * DAY_SECONDS - 1.0)
    assert back.usd == pytest.approx(2160.0)  # and nothing of the days before


def test_of_a_scaler_that_runs_a_little_every_day_the_day_begins_with_nothing():
    before = Spent()
    for day in range(10, 40):
        before = ran(before, day * DAY_SECONDS + 3600.0, 600.0)
        assert before.usd == pytest.approx(10.0)
        assert len(before.days) <= KEPT_DAYS


@pytest.mark.parametrize("jump", [-1, -2, -9, -10, 1, 2, 3, 100, 2_900_000])
def test_a_clock_that_jumps_by_days_and_comes_back_gives_no_money_back(jump: int):
    noon = 10 * DAY_SECONDS + 43_200.0
    now = ran(Spent((Day(9, 70.0), Day(10, 50.0)), noon), noon, 600.0)
    assert now.usd == pytest.approx(60.0)
    wrong = ran(now, noon + jump * DAY_SECONDS, 600.0)
    assert wrong.usd >= 60.0 or jump > 0  # ahead, nobody knows that it is no new day
    again = ran(wrong, noon + 1200.0, 600.0)
    assert again.usd >= 60.0 + 10.0 + 10.0 - 0.001
    assert again.usd <= 60.0 + 10.0 + 10.0 + 5 * 2 + 0.001  # a gap is counted at each jump at most


@pytest.mark.parametrize("ahead", [1, 30, 2_900_000])
def test_after_a_jump_ahead_and_back_days_count_again_within_two(ahead: int):
    noon = 10 * DAY_SECONDS + 43_200.0
    now = ran(Spent((Day(10, 50.0),), noon), noon + ahead * DAY_SECONDS, 600.0)
    now = ran(now, noon, 3.5 * DAY_SECONDS)  # until midnight
    assert now.usd <= 1440.0 + 0.001
    now = ran(now, noon + 3.5 * DAY_SECONDS, 3600.0)
    assert now.usd <= 60.0 + 0.001
    assert len(now.days) <= KEPT_DAYS


def test_a_step_back_over_midnight_costs_the_new_day_little():
    midnight = 11 * DAY_SECONDS
    now = ran(Spent((Day(10, 50.0),), midnight - 60.0), midnight - 60.0, 120.0)
    assert now.usd == pytest.approx(1.0)
    back = spent(now, 60.0, now=now.at or 0.0, wall=midnight - 1.0)
    assert back.usd == pytest.approx(52.0)
    assert ran(back, midnight, 60.0).usd <= 3.0


def test_the_rest_of_the_day_is_kept_for_the_least_sizes():
    noon = 10 * DAY_SECONDS + DAY_SECONDS / 2
    money = Money(usd_per_day=100.0)
    (limit,) = ceilings(money, Spent((Day(10, 40.0),), noon), noon, {"a": 1.0}, 5.0)
    assert limit.limit == 5.0  # 12 hours of 5 USD are what is left
    (limit,) = ceilings(money, Spent((Day(10, 39.0),), noon), noon, {"a": 1.0}, 5.0)
    assert limit.limit == 5.0 + 1.0 * 12  # one USD to be spent within five minutes
    (limit,) = ceilings(money, Spent((Day(10, 99.0),), noon), noon, {"a": 1.0}, 5.0)
    assert limit.limit == 5.0


def together(limit: float, money: Money | None, ticks: int = 30, rate: float = 200.0):
    policies = {
        "a": PoolPolicy(scale(max=12)),
        "b": PoolPolicy(scale(max=12, min=2)),
        "fixed": PoolPolicy(None, 2),
    }
    gpus = {"gpus": budget(limit, a=(5, 1), b=(0, 1), fixed=(0, 1))}
    memory, now, decisions = AllMemory(), 0.0, {}
    sizes = dict.fromkeys(policies, 2)
    for _ in range(ticks):
        now += 10
        views = {
            name: view(now, rate if name != "fixed" else 0.0, sizes[name], usd_per_hour=2.0)
            for name in policies
        }
        decisions, memory = decide_all(policies, gpus, money, memory, views)
        sizes = {name: one.size for name, one in decisions.items()}
        assert sum(sizes.values()) <= limit
    return decisions


def test_pools_together_stay_within_a_budget_and_say_so():
    decisions = together(12, None)
    assert {name: one.size for name, one in decisions.items()} == {"a": 8, "b": 2, "fixed": 2}
    assert decisions["a"].constraints[-1].bound is Bound.BUDGET
    assert decisions["a"].why_not_more.startswith("Not 9: budget gpus has 12")


def test_pools_together_stay_within_what_an_hour_may_cost():
    decisions = together(99, Money(usd_per_hour=21.0))
    assert sum(one.usd_per_hour for one in decisions.values()) == 20.0
    # By turns, since nothing ranks them but the budget: that goes first to `a`.
    assert decisions["b"].size == 2
    assert "the ceiling of money per hour" in decisions["a"].why


def test_when_the_day_is_spent_only_the_least_sizes_run():
    decisions = together(99, Money(usd_per_day=1.0))
    assert {name: one.size for name, one in decisions.items()} == {"a": 1, "b": 2, "fixed": 2}
    assert "money per day" in decisions["a"].why


def test_limits_of_nothing_are_no_trouble():
    assert granted({}, [Limit(Bound.BUDGET, "g", 1.0, {"a": 1.0})], {}) == {}


HOURLY = Money(usd_per_hour=4.0)


def sizes_of(
    wanted: dict[str, int], seen: dict[str, tuple[int, int]], memory: AllMemory | None = None
) -> tuple[dict[str, int], AllMemory, str]:
    """Sizes under a ceiling of 4 USD an hour, of replicas of 1 USD; `a` goes first.

    Args:
        wanted: of each pool.
        seen: those that are ready, and those that drain.
        memory: of the tick before.
    """
    policies = {name: PoolPolicy(None, size) for name, size in wanted.items()}
    views = {
        name: view(0.0, 0.0, ready, leaving=leaving, usd_per_hour=1.0)
        for name, (ready, leaving) in seen.items()
    }
    ranks = {"ranks": budget(99, a=(5, 1), b=(0, 1))}
    decisions, after = decide_all(policies, ranks, HOURLY, memory or AllMemory(), views)
    return {name: one.size for name, one in decisions.items()}, after, decisions["a"].why


def test_nothing_starts_over_the_ceiling_of_an_hour_while_others_drain():
    wanted = {"a": 4, "b": 0}
    assert sizes_of(wanted, {"a": (0, 0), "b": (4, 0)})[0] == {"a": 0, "b": 0}  # b is to drain
    sizes, _, why = sizes_of(wanted, {"a": (0, 0), "b": (0, 4)})
    assert sizes == {"a": 0, "b": 0}
    assert why == (
        "0 replicas: the ceiling of money per hour with what still drains leaves $4.00 an hour, "
        "and $8.00 are asked for."
    )
    assert sizes_of(wanted, {"a": (0, 0), "b": (0, 3)})[0] == {"a": 1, "b": 0}
    assert sizes_of(wanted, {"a": (1, 0), "b": (0, 1)})[0] == {"a": 3, "b": 0}
    assert sizes_of(wanted, {"a": (3, 0), "b": (0, 0)})[0] == {"a": 4, "b": 0}


def test_what_drains_takes_nothing_from_what_serves():
    assert sizes_of({"a": 2, "b": 2}, {"a": (2, 2), "b": (2, 3)})[0] == {"a": 2, "b": 2}


def test_who_goes_first_grows_once_the_others_have_drained_for_it():
    wanted = {"a": 4, "b": 2}
    assert sizes_of(wanted, {"a": (2, 0), "b": (2, 0)})[0] == {"a": 2, "b": 0}
    assert sizes_of(wanted, {"a": (2, 0), "b": (0, 2)})[0] == {"a": 2, "b": 0}
    assert sizes_of(wanted, {"a": (2, 0), "b": (0, 0)})[0] == {"a": 4, "b": 0}


def test_a_pool_that_cannot_be_seen_costs_as_before():
    wanted = {"a": 1, "b": 3}
    _, memory, _ = sizes_of(wanted, {"a": (1, 0), "b": (3, 0)})
    assert sizes_of({"a": 4, "b": 3}, {"a": (1, 0)}, memory)[0]["a"] == 1
    later = {"a": view(100.0, 0.0, 1, usd_per_hour=1.0)}
    policies = {name: PoolPolicy(None, size) for name, size in wanted.items()}
    _, after = decide_all(policies, {}, None, memory, later)
    assert after.spent.usd == pytest.approx(4.0 * 100 / 3600)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("ab"),
        st.tuples(*[st.integers(0, 6)] * 3),
        min_size=2,
        max_size=2,
    )
)
def test_no_start_takes_what_runs_over_the_ceiling(pools):
    wanted = {name: one[0] for name, one in pools.items()}
    seen = {name: (ready, leaving) for name, (_, ready, leaving) in pools.items()}
    sizes, _, _ = sizes_of(wanted, seen)
    runs = sum(map(sum, seen.values()))
    starts = sum(max(sizes[name] - seen[name][0], 0) for name in pools)
    assert starts == 0 or runs + starts <= 4
    assert sum(sizes.values()) <= 4
