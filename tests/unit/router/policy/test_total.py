"""What all levers of a route lose together, and which one is halted for it."""

import json
from dataclasses import replace

import pytest

from services.router.policy.guardrail import Guard
from services.router.policy.lever_record import LeverRecord
from services.router.policy.lever_values import lever_record_of, values_of
from services.router.policy.total import Blame, blame, total_judged

GUARD = Guard(tolerance=0.02, run_length=200.0)
NEW = LeverRecord()
TINY, SMALL = "tier:tiny", "tier:small"


def sample(
    record: LeverRecord,
    losses: dict[str, float],
    levers: dict[str, LeverRecord] | None = None,
    now: float = 10.0,
    guard: Guard = GUARD,
) -> LeverRecord:
    known = levers or {TINY: NEW, SMALL: NEW}
    return total_judged(record, known, guard, calibration="v1", losses=losses, weight=1.0, now=now)


def mean(record: LeverRecord) -> float | None:
    watch = record.watch("v1")
    return None if watch is None else watch.state.mean_loss


def blamed(record: LeverRecord, levers: dict[str, LeverRecord]) -> LeverRecord:
    """The record after so many pairs as have a lever blamed."""
    for _ in range(20):
        record = sample(record, {TINY: 0.5, SMALL: 0.5}, levers)
    assert record.watch("v1") is not None
    return record


def test_the_losses_of_one_pair_add_up() -> None:
    assert mean(sample(NEW, {TINY: 0.25, SMALL: 0.5})) == pytest.approx(0.75)
    assert mean(sample(NEW, {TINY: -0.25, SMALL: 0.5})) == pytest.approx(0.25)


def test_more_than_an_answer_is_worth_cannot_be_lost() -> None:
    assert mean(sample(NEW, {TINY: 0.9, SMALL: 0.9})) == 1.0
    assert mean(sample(NEW, {TINY: -0.9, SMALL: -0.9})) == -1.0
    never_better = replace(GUARD, lowest_loss=0.0)
    assert mean(sample(NEW, {TINY: -0.9, SMALL: 0.5}, guard=never_better)) == 0.0


def test_what_halted_levers_lose_does_not_count() -> None:
    halted = {TINY: NEW, SMALL: NEW.halt("ann", "why", 1.0)}
    assert mean(sample(NEW, {TINY: 0.25, SMALL: 0.5}, halted)) == pytest.approx(0.25)
    assert sample(NEW, {SMALL: 0.5}, halted) is NEW
    assert sample(NEW, {"tier:gone": 0.5}) is NEW


def test_the_one_with_the_most_evidence_against_it_is_blamed() -> None:
    levers = {TINY: NEW, SMALL: NEW.judged(GUARD, "v1", 1.0, 1.0, 5.0)}
    found = blame(blamed(NEW, levers), levers, "v1")
    assert found is not None
    assert found.lever == SMALL
    assert "levers of the route together" in found.reason
    halted = levers[SMALL].halted_for_all("v1", found.reason, found.since)
    assert halted.standing(11.0, "v1").author == "guardrail"
    assert halted.standing(11.0, "v1").reason == found.reason
    assert halted.halted_for_all("v1", found.reason, 12.0) is halted


def test_nobody_is_blamed_while_all_together_keep_to_it() -> None:
    record = NEW
    for _ in range(100):
        record = sample(record, {TINY: 0.01, SMALL: 0.01})
    assert blame(record, {TINY: NEW, SMALL: NEW}, "v1") is None


def test_a_blamed_lever_is_halted_once() -> None:
    levers = {TINY: NEW, SMALL: NEW}
    record = blamed(NEW, levers)
    found = blame(record, levers, "v1")
    assert isinstance(found, Blame)
    halted = NEW.halted_for_all("v1", found.reason, found.since)
    for lever in (halted, halted.release("ann", "was fine", 20.0)):
        assert blame(record, {**levers, found.lever: lever}, "v1") is None
    assert blame(record, levers, "v2") is None


@pytest.mark.parametrize("clock", [5.0, 500.0])
def test_the_watch_begins_anew_when_a_lever_was_halted_or_released(clock: float) -> None:
    """Wherever clocks are: what is left in use may lose as much as before."""
    record = sample(NEW, {TINY: 1.0, SMALL: 0.0})
    for changed in (NEW.halt("ann", "why", clock), NEW.release("ann", "why", clock + 1)):
        record = sample(record, {TINY: 0.25}, {TINY: NEW, SMALL: changed}, now=20.0)
        assert mean(record) == pytest.approx(0.25)
        watch = record.watch("v1")
        assert watch is not None
        assert watch.state.samples == 1
        again = sample(record, {TINY: 0.25}, {TINY: NEW, SMALL: changed}, now=21.0)
        watch = again.watch("v1")
        assert watch is not None
        assert watch.state.samples == 2
        assert record.joined(again) == again.joined(record) == again


def test_a_record_with_a_blamed_lever_comes_back_from_json() -> None:
    record = blamed(NEW, {TINY: NEW, SMALL: NEW})
    written = json.loads(json.dumps(values_of(record)))
    assert lever_record_of(written) == record
    del written["watches"][0]["blamed"], written["watches"][0]["levers"]
    before = lever_record_of(written).watches[0]  # as routers of before write it
    assert (before.blamed, before.levers) == ("", 0.0)
