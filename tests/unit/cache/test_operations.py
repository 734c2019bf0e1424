"""How long a lookup waits for another's answer: for whoever has the least patience."""

import pytest

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache.metrics import Counts
from services.cache.operations import Operations
from services.cache.ports import NoEntry
from services.common.durations import duration_of


class Patient:
    """A store that notes how long lookups would wait."""

    def __init__(self):
        self.waits = []

    def claim(self, key, wanted, wait_seconds):
        self.waits.append(wait_seconds)
        return NoEntry.ABSENT


class Seconds:
    """A histogram that nobody reads."""

    def labels(self, name):
        return self

    def observe(self, seconds):
        pass


def lookup(wait):
    return pb.LookupRequest(
        route="support",
        request=pb.CanonicalRequest(
            turns=[pb.Turn(role="user", content="hi")], max_output_tokens=64, top_p=1.0
        ),
        accepted_writers=[pb.Writer(tier="small", model="m", precision="int4")],
        lease=True,
        max_wait=duration_of(wait),
    )


def scene(max_wait_seconds=30.0):
    store = Patient()
    operations = Operations(
        store,
        b"k" * 32,
        max_entry_bytes=1000,
        max_wait_seconds=max_wait_seconds,
        seconds=Seconds(),
        counts=Counts(),
    )
    return store, operations


@pytest.mark.parametrize(
    ("asked", "left", "most", "waits"),
    [
        pytest.param(10.0, 20.0, 30.0, 10.0, id="what is asked for"),
        pytest.param(50.0, 20.0, 30.0, 20.0, id="what the call has left"),
        pytest.param(50.0, 60.0, 30.0, 30.0, id="what the cache allows"),
    ],
)
def test_a_lookup_waits_for_the_shortest(asked, left, most, waits):
    store, operations = scene(most)
    operations.start(operations.named["lookup"], "acme", lookup(asked), left)
    assert store.waits == [waits]


def test_nobody_waits_while_the_process_is_about_to_end():
    store, operations = scene()
    operations.draining = True
    operations.start(operations.named["lookup"], "acme", lookup(10.0), 20.0)
    assert store.waits == [0.0]
