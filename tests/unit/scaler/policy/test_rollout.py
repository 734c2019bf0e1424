"""New settings are in force until they fail, and good once a whole pool was ready with them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.scaler.policy.rollout import Change, Rollout, SettingsRefusal, changes


def test_the_first_settings_are_tried_for_ever():
    first = Rollout("a")
    assert first.in_force == "a"
    assert first.failed("it died", 5.0, (), serving=True) == first


def test_settings_that_fail_give_way_to_the_last_good_ones():
    good = Rollout("a").whole()
    tried = good.ask("b", alike=False)
    assert (tried.in_force, tried.tried) == ("b", True)
    refused = tried.failed("it died", 5.0, (Change("x", 2, 1),), serving=True)
    assert refused.in_force == "a"
    assert refused.refused == SettingsRefusal("it died", 5.0, (Change("x", 2, 1),))
    assert refused.whole() == refused  # ready with the old ones says nothing of the new ones
    assert refused.failed("again", 9.0, (), serving=True) == refused


def test_good_settings_stay_in_force_when_a_replica_fails():
    good = Rollout("a").whole().ask("b", alike=False).whole()
    assert good.good == "b"
    assert good.failed("it died", 5.0, (), serving=True) == good


def test_where_the_good_ones_fail_too_and_nothing_serves_both_are_tried_in_turn():
    refused = Rollout("a").whole().ask("b", alike=False).failed("it died", 5.0, (), serving=False)
    assert refused.in_force == "a"
    again = refused.failed("a died too", 6.0, (), serving=False)
    assert (again.in_force, again.refused, again.turns) == ("b", None, 1)
    assert again.failed("b died", 7.0, (), serving=False).in_force == "a"
    assert again.whole() == Rollout("b", "b")
    assert again.ask("c", alike=False) == Rollout("c", "a")


def test_other_settings_or_the_same_again_are_another_try():
    refused = Rollout("a").whole().ask("b", alike=False).failed("it died", 5.0, (), serving=True)
    for asked in ("b", "c"):
        assert refused.ask(asked, alike=False) == Rollout(asked, "a")
    assert refused.ask("a", alike=True) == Rollout("a", "a")


def test_what_needs_no_other_replica_needs_no_try():
    grown = Rollout("a").whole().ask("a, three of them", alike=True)
    assert (grown.in_force, grown.tried) == ("a, three of them", False)
    assert Rollout("a").ask("b", alike=True).good is None  # nothing was good yet


events = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3)), st.just(("whole", 0)), st.just(("failed", 0))
    )
)


@given(events)
def test_a_pool_never_goes_by_settings_that_failed_while_there_are_good_ones(happened):
    rollout, was_whole = Rollout(0), set()
    for what, asked in happened:
        if what == "ask":
            rollout = rollout.ask(asked, alike=asked == rollout.good)
        elif what == "whole":
            was_whole.add(rollout.in_force)
            rollout = rollout.whole()
        else:
            failed, rollout = rollout.in_force, rollout.failed("it died", 1.0, (), serving=True)
            if was_whole and failed != rollout.good:
                assert rollout.in_force != failed
        assert (rollout.good is None) == (not was_whole)
        assert rollout.good is None or rollout.good in was_whole
        assert replace(rollout, refused=None).in_force == rollout.asked


def test_changes_are_told_by_their_keys():
    before = {"parameters": {"model": "int8", "threads": 1}, "slots": [{"cpus": [0]}], "size": 1}
    after = {"parameters": {"model": "int9"}, "slots": [{"cpus": [0, 1]}, {}], "size": 1}
    assert list(changes(before, after, "pools.a")) == [
        Change("pools.a.parameters.model", "int9", "int8"),
        Change("pools.a.parameters.threads", None, 1),
        Change("pools.a.slots.0.cpus.1", 1, None),
        Change("pools.a.slots.1", {}, None),
    ]
