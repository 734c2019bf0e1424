"""The gauges of waiting and running requests: read when asked, with or without a scaler."""

import time

from prometheus_client import CollectorRegistry

from services.router.fleet.fleet import Fleet, Replica, State
from services.router.fleet.snapshot import LoadCollector, ReplicaLoad, TierLoad
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from tests.making.policies import policies, route, tier


async def test_gauges_show_the_fleet_at_the_moment_of_asking() -> None:
    registry = CollectorRegistry()
    small = tier("small")
    fleet = Fleet(
        policies(route("chat", small)), Metrics(registry), spawn=lambda work: work.close()
    )
    registry.register(LoadCollector(fleet.snapshot))

    def running() -> float | None:
        return registry.get_sample_value("pennyweight_router_running", {"tier": "small"})

    assert running() == 0
    fleet.update(
        [Replica("a", "small", small.model, small.precision, "a:1", State.READY, max_in_flight=2)]
    )
    until = time.monotonic() + 10
    place = await fleet.place(small, Priority.INTERACTIVE, avoid=(), until=until)
    assert fleet.snapshot() == [
        TierLoad("small", 0, 1, (ReplicaLoad("a", 1),), small.max_sequence_tokens)
    ]
    assert running() == 1  # nobody reported anything
    place.give_back()
    assert running() == 0


def test_each_tier_has_its_gauges() -> None:
    registry = CollectorRegistry()
    registry.register(LoadCollector(lambda: [TierLoad("a", 1, 2, ()), TierLoad("b", 3, 4, ())]))
    for name, expected in (("waiting", (1, 3)), ("running", (2, 4))):
        found = [
            registry.get_sample_value(f"pennyweight_router_{name}", {"tier": tier})
            for tier in ("a", "b")
        ]
        assert found == list(expected)
