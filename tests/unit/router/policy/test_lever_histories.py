"""Whatever happens to a lever's record: what follows, and what two that went apart become."""

import json
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.guardrail import Guard
from services.router.policy.lever_record import LeverRecord
from services.router.policy.lever_values import lever_record_of, values_of

GUARD = Guard(tolerance=0.02, run_length=200.0)
"""One so nervous that a few bad samples halt the lever."""

NEW = LeverRecord()


@dataclass(frozen=True)
class Step:
    """Something that happens to a record; clocks of routers differ."""

    kind: str
    calibration: str
    loss: float
    now: float
    seconds: float | None

    def __call__(self, record: LeverRecord) -> LeverRecord:
        match self.kind:
            case "halt":
                return record.halt("ann", "why", self.now, self.seconds)
            case "release":
                return record.release("ann", "why", self.now)
            case "blame":
                return record.halted_for_all(self.calibration, "together", self.now)
            case "restart":
                return record.restarted(self.now)
            case "recalibrate":
                return record.recalibrated(self.calibration, self.now)
        return record.judged(GUARD, self.calibration, self.loss, 1.0, self.now)


steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(
            ["judge"] * 5 + ["halt", "release", "recalibrate", "blame", "restart"]
        ),
        calibration=st.sampled_from(["", "v1", "v2", "v3"]),  # as many as are remembered
        loss=st.sampled_from([-1.0, 0.0, 1.0]),
        now=st.floats(1.7e9, 1.7e9 + 100),
        seconds=st.none() | st.floats(1, 100),
    ),
    max_size=30,
)


def histories(taken: list[Step], start: LeverRecord = NEW) -> list[LeverRecord]:
    records = [start]
    for step in taken:
        records.append(step(records[-1]))
    return records


@given(steps)
def test_what_came_after_wins_over_what_was_before(taken: list[Step]) -> None:
    *before, last = histories(taken)
    for one in before:
        assert one.joined(last) == last
        assert last.joined(one) == last


@given(steps, steps, steps)
def test_records_that_went_apart_come_together_again(
    shared: list[Step], ours: list[Step], theirs: list[Step]
) -> None:
    common = histories(shared)[-1]
    one, other = histories(ours, common)[-1], histories(theirs, common)[-1]
    joined = one.joined(other)
    assert one.joined(joined) == joined
    assert other.joined(joined) == joined
    assert joined.joined(joined) == joined


@given(steps, steps)
def test_no_halt_is_lost_where_records_went_apart(ours: list[Step], theirs: list[Step]) -> None:
    """Unless a person released it later."""
    one, other = histories(ours)[-1], histories(theirs)[-1]
    joined = one.joined(other)
    for record in (one, other):
        for watch in record.watches:
            if watch.halted is None or watch.began <= joined.released:
                continue
            kept = joined.watch(watch.calibration)
            assert kept is not None
            assert kept.halted is not None
        if joined.setting is not None and record.setting is not None:
            assert joined.setting.since >= record.setting.since


@given(steps)
def test_a_lever_is_halted_exactly_by_a_person_or_its_watch(taken: list[Step]) -> None:
    """Against a model that only looks at what happened last, on one clock and one calibration."""
    record, person, until, evidence = NEW, False, 0.0, False
    for now, step in enumerate(taken):
        at = float(now)
        record = replace(step, calibration="v1", now=at)(record)
        if step.kind == "restart":
            evidence = False
        elif step.kind == "halt":
            person, until = True, float("inf") if step.seconds is None else at + step.seconds
        elif step.kind == "release":
            person, evidence = False, False
        watch = record.watch("v1")
        evidence = evidence or (watch is not None and watch.state.halted)
        assert record.standing(at, "v1").halted == ((person and at < until) or evidence)


@given(steps)
def test_a_record_comes_back_from_json(taken: list[Step]) -> None:
    record = histories(taken)[-1]
    assert lever_record_of(json.loads(json.dumps(values_of(record)))) == record
