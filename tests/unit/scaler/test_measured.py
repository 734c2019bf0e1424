"""What trials are told of a pool's replicas: what they were seen to do."""

from types import SimpleNamespace

from services.scaler.assembly import measured
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.try_out.pools import Measured


def test_trials_are_told_constants_and_starts_as_they_were_measured():
    view = SimpleNamespace(name="p", typical_start_seconds=42.0, start_spread=0.3)
    learned = SimpleNamespace(capacity=Capacity(a=0.5), correction=1.5)
    found = Measured.of(measured(view, SimpleNamespace(learned=lambda _: learned)))
    assert (found.start_seconds, found.start_spread) == (42.0, 0.3)
    assert (found.capacity, found.correction, found.source) == (Capacity(a=0.5), 1.5, "measured")
