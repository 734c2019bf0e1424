"""Which pods go: against a cluster that deletes them by its own rules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scaler.policy.workload import DRAINED, DRAINS, Pod, plan, victims


def pod(name: str, **changes) -> Pod:
    fields = {"placed": True, "ready": True, "ready_since": 10.0, "address": "10.0.0.1"}
    return Pod(id=f"{name}-id", name=name, uid=name, created=1.0, **(fields | changes))


def starting(name: str, **changes) -> Pod:
    return pod(name, ready=False, ready_since=None, **changes)


def group(index: int, **changes) -> Pod:
    return pod(f"g-{index}", index=index, **changes)


def asked(size, pods, *, draining=(), drained=(), replicas=None):
    ids = [[f"{name}-id" for name in names] for names in (draining, drained)]
    count = len(pods) if replicas is None else replicas
    return plan(size, pods, draining=ids[0], drained=ids[1], replicas=count)


def test_more_are_asked_for_at_once():
    found = asked(5, [pod("a"), pod("b")])
    assert (found.replicas, found.costs, found.delete) == (5, {}, ())


def test_who_drains_stays_and_is_the_first_to_go():
    found = asked(1, [pod("a"), pod("b")], draining=["b"])
    assert (found.replicas, found.costs) == (2, {"b": DRAINS})


def test_who_has_drained_is_the_one_that_goes():
    pods = [pod("a", ready_since=99.0), pod("b"), pod("c")]
    found = asked(2, pods, drained=["b"])
    assert (found.replicas, found.costs, found.delete) == (2, {"b": DRAINED}, ())
    left = victims([replace(one, cost=found.costs.get(one.name, 0)) for one in pods])
    assert left[0].name == "b"


def test_a_pod_that_starts_does_not_go_in_the_place_of_one_that_has_drained():
    pods = [pod("a"), pod("b"), starting("new")]
    found = asked(2, pods, drained=["b"])
    assert [one.name for one in found.delete] == ["b"]
    assert found.replicas == 2


def test_one_that_serves_never_goes_undrained():
    found = asked(1, [pod("a"), pod("b"), pod("c")])
    assert (found.replicas, found.delete) == (3, ())


def test_what_is_on_its_way_is_given_up_when_it_is_wanted_no_more():
    pods = [pod("a"), starting("b", placed=False), starting("c")]
    assert asked(1, pods).replicas == 1
    assert asked(2, pods).replicas == 2


def test_who_serves_is_no_reason_to_ask_for_more_than_is_asked_for():
    """An earlier scaler has made it smaller, and the cluster has not ended its pod yet."""
    pods = [pod("a"), pod("b"), pod("c", cost=DRAINED)]
    assert asked(2, pods, replicas=2).replicas == 2


def test_a_cost_that_an_earlier_scaler_wrote_stays():
    assert asked(2, [pod("a"), pod("b", cost=DRAINS)]).costs == {}


def test_one_that_leaves_is_replaced_and_then_deleted_by_name():
    pods = [pod("a"), pod("gone")]
    assert asked(2, pods, draining=["gone"]).replicas == 3
    found = asked(2, pods, drained=["gone"])
    assert (found.replicas, [one.name for one in found.delete]) == (2, ["gone"])


def test_pods_that_end_count_for_nothing():
    pods = [pod("a"), pod("b", ending=True), pod("c", over=True)]
    found = asked(1, pods, draining=["b"], replicas=1)
    assert (found.replicas, found.costs, found.delete) == (1, {}, ())


@pytest.mark.parametrize(
    ("size", "drained", "replicas", "deleted"),
    [
        (2, ["g-2"], 2, []),
        (2, [], 3, []),
        (1, ["g-2"], 2, []),
        (1, ["g-1", "g-2"], 1, []),
        (3, ["g-0"], 3, ["g-0"]),
        (2, ["g-0"], 3, ["g-0"]),
    ],
)
def test_groups_go_by_their_index_alone(size, drained, replicas, deleted):
    found = asked(size, [group(0), group(1), group(2)], drained=drained)
    assert (found.replicas, [one.name for one in found.delete]) == (replicas, deleted)


PODS = st.lists(
    st.builds(
        dict,
        ready=st.booleans(),
        placed=st.booleans(),
        ending=st.sampled_from([False, False, True]),
        fate=st.sampled_from(["serves", "drains", "drained"]),
        created=st.floats(0, 100),
    ),
    max_size=8,
)


@given(drawn=PODS, size=st.integers(0, 8), more=st.integers(0, 3), indexed=st.booleans())
def test_whatever_the_cluster_is_asked_for_takes_nobody_who_serves(drawn, size, more, indexed):
    pods = [
        Pod(
            id=str(number),
            name=str(number),
            uid=str(number),
            created=one["created"],
            placed=one["placed"] or one["ready"],
            ready=one["ready"],
            ready_since=one["created"] if one["ready"] else None,
            ending=one["ending"],
            index=number if indexed else None,
        )
        for number, one in enumerate(drawn)
    ]
    fates = {pod.id: one["fate"] for pod, one in zip(pods, drawn, strict=True)}
    draining = [name for name, fate in fates.items() if fate == "drains"]
    drained = [name for name, fate in fates.items() if fate == "drained"]
    living = [one for one in pods if one.alive]
    replicas = len(pods) if indexed else len(living) + more
    found = plan(size, pods, draining=draining, drained=drained, replicas=replicas)
    left = [
        replace(one, cost=found.costs.get(one.name, one.cost))
        for one in living
        if one not in found.delete
    ]
    if indexed:
        gone = [one for one in left if one.index >= found.replicas]
    else:
        gone = victims(left)[: max(len(left) - found.replicas, 0)]
    for one in (*gone, *found.delete):
        assert one.id in drained or not one.ready
    if not indexed:
        there = sum(one.id in draining for one in living)
        assert found.replicas >= size + there
        if all(one.id in drained for one in living):
            assert not [one for one in left if one not in gone][size:]
    again = plan(size, pods, draining=draining, drained=drained, replicas=found.replicas)
    assert again.replicas == found.replicas or again.replicas < found.replicas
