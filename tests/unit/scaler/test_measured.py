"""What trials are told of a pool's replicas: what they were seen to do."""

import json
from dataclasses import asdict
from types import SimpleNamespace

from services.scaler.assembly import measured
from services.scaler.policy.sizing.capacity import Fit, Learned, fitted
from services.scaler.try_out.pools import Measured


def test_trials_are_told_constants_and_starts_as_they_were_measured():
    view = SimpleNamespace(name="p", typical_start_seconds=42.0, start_spread=0.3)
    fit = fitted(Fit(), 8.0, 500.0, 100.0, step=0.02, seconds=60.0)
    learned = Learned(1.5, fit, fit.capacity)
    told = measured(view, SimpleNamespace(learned=lambda _: learned))
    found = Measured.of(json.loads(json.dumps(told)))  # as it comes to the trial's process
    assert (found.start_seconds, found.start_spread) == (42.0, 0.3)
    assert (found.capacity, found.correction, found.source) == (fit.capacity, 1.5, "measured")
    assert found.learned == learned


def test_policies_begin_with_what_was_learned_only_where_replicas_are_that():
    fit = fitted(Fit(), 8.0, 500.0, 100.0, step=0.02, seconds=60.0)
    told = {"capacity": asdict(fit.capacity), "correction": 0.9, "fit": asdict(fit)}
    assert Measured.of(told).asked({"start_seconds": 9.0}).learned.fit == fit
    assert Measured.of(told).asked({"capacity": {"a": 0.5}}).learned == Learned()
    assert Measured.of({**told, "capacity": None}).learned == Learned()
