"""Levers: what is known of one, who halts and releases it, and what the guardrail holds it to."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from services.router.policy.calibration import Rung
from services.router.policy.guardrail import Guard
from services.router.policy.lever_record import (
    CALIBRATION,
    DAMAGED,
    GUARDRAIL,
    MAX_WATCHES,
    LeverRecord,
    Standing,
)
from services.router.policy.levers import (
    calibration_version,
    guard_of,
    is_judged,
    levers_of,
    total_guard,
)
from services.router.policy.routes import (
    CachePolicy,
    Calibrated,
    EvidencePolicy,
    JudgeKind,
    Judging,
    Route,
    Trimming,
)
from tests.making.policies import calibrated, ladder, quality, route

GUARD = Guard(tolerance=0.02, run_length=200.0)
"""One so nervous that a few bad samples halt the lever."""

NEW = LeverRecord()


def bad(record: LeverRecord, calibration: str = "v1", now: float = 10.0) -> LeverRecord:
    """The record after so many bad samples as halt the lever."""
    for _ in range(20):
        record = record.judged(GUARD, calibration, 1.0, 1.0, now)
    assert record.standing(now, calibration).author == GUARDRAIL
    return record


def test_a_lever_of_which_nothing_is_known_is_on() -> None:
    assert NEW.standing(0.0, "v1") == Standing(halted=False)


def test_a_person_halts_until_a_person_releases() -> None:
    halted = NEW.halt("ann", "looks wrong", 10.0)
    for calibration in ("", "v1", "v2"):
        said = halted.standing(1e9, calibration)
        assert said == Standing(halted=True, author="ann", reason="looks wrong", since=10.0)
    released = halted.release("bob", "was fine", 20.0)
    assert released.standing(20.0, "v1") == Standing(
        halted=False, author="bob", reason="was fine", since=20.0
    )


def test_a_halt_ends_by_itself_at_its_expiry() -> None:
    halted = NEW.halt("ann", "for the launch", 10.0, seconds=60.0)
    said = halted.standing(69.9, "v1")
    assert (said.halted, said.since, said.expires) == (True, 10.0, 70.0)
    said = halted.standing(70.0, "v1")
    assert (said.halted, said.since, said.expires) == (False, 70.0, None)
    assert said.reason == "the halt ended by itself: for the launch"


def test_bad_samples_halt_and_say_why() -> None:
    said = bad(NEW).standing(11.0, "v1")
    assert (said.halted, said.since, said.expires) == (True, pytest.approx(10.0, abs=0.01), None)
    assert "judged samples lost 100.0 points" in said.reason


def test_good_samples_do_not_halt() -> None:
    record = NEW
    for _ in range(100):
        record = record.judged(GUARD, "v1", 0.0, 1.0, 10.0)
    assert not record.standing(10.0, "v1").halted
    watch = record.watch("v1")
    assert watch is not None
    assert watch.state.samples == 100


@pytest.mark.parametrize("halt", [bad, lambda record: record.halt("ann", "why", 10.0)])
def test_a_halted_lever_is_not_watched(halt: Callable[[LeverRecord], LeverRecord]) -> None:
    record = halt(NEW.judged(GUARD, "v1", 0.0, 1.0, 9.0))
    assert record.judged(GUARD, "v1", -1.0, 1.0, 11.0) is record


def test_the_watch_goes_on_where_it_stood_when_a_halt_has_ended_by_itself() -> None:
    record = NEW.judged(GUARD, "v1", 1.0, 1.0, 9.0).halt("ann", "why", 10.0, seconds=5.0)
    record = record.judged(GUARD, "v1", 1.0, 1.0, 16.0)
    watch = record.watch("v1")
    assert watch is not None
    assert watch.state.samples == 2


def test_a_release_starts_the_watch_anew() -> None:
    record = bad(NEW).release("ann", "the judge was wrong", 20.0)
    assert record.watch("v1") is None
    record = record.judged(GUARD, "v1", 1.0, 1.0, 21.0)
    watch = record.watch("v1")
    assert watch is not None
    assert watch.state.samples == 1


def test_a_persons_halt_that_ends_does_not_end_the_guardrails() -> None:
    record = bad(NEW).halt("ann", "to be sure", 20.0, seconds=5.0)
    assert record.standing(21.0, "v1").author == "ann"
    assert record.standing(26.0, "v1").author == GUARDRAIL


def test_another_calibration_starts_anew_while_the_one_before_stays_halted() -> None:
    record = bad(NEW, "v1")
    assert not record.standing(11.0, "v2").halted
    record = record.judged(GUARD, "v2", 0.0, 1.0, 12.0)
    assert record.standing(12.0, "v1").author == GUARDRAIL  # of routers that still run it
    said = record.standing(12.0, "v2")
    assert (said.halted, said.author, said.since) == (False, CALIBRATION, 12.0)
    assert "v2 is in force" in said.reason


def test_a_person_who_halted_is_not_overruled_by_a_calibration() -> None:
    record = bad(NEW, "v1").halt("ann", "why", 20.0).recalibrated("v2", 30.0)
    assert record.standing(31.0, "v2").author == "ann"


def test_to_take_a_calibration_away_ends_no_halt() -> None:
    assert bad(NEW, "v1").standing(11.0, "").halted
    assert not bad(NEW, "").standing(11.0, "v1").halted


def test_a_fresh_calibration_is_noted_once_and_only_where_it_ended_a_halt() -> None:
    watched = NEW.judged(GUARD, "v1", 0.0, 1.0, 10.0)
    assert watched.recalibrated("v2", 11.0) is watched
    halted = bad(NEW, "v1")
    assert halted.recalibrated("", 11.0) is halted
    assert halted.recalibrated("v1", 11.0) is halted
    noted = halted.recalibrated("v2", 11.0)
    assert noted.standing(12.0, "v2").author == CALIBRATION
    assert noted.recalibrated("v2", 13.0) is noted


@pytest.mark.parametrize("until", [-math.inf, 5.0, 10.001])
def test_a_calibration_on_evidence_from_before_the_halt_ends_none(until: float) -> None:
    halted = bad(NEW, "v1")
    (watch,) = halted.watches
    assert watch.halted == 10.001
    said = halted.standing(11.0, "v2", until)
    assert (said.halted, said.author, said.since) == (True, GUARDRAIL, 10.001)
    assert said.reason.endswith("v2 has no evidence from after that.")
    assert halted.recalibrated("v2", 11.0, until) is halted
    assert halted.judged(GUARD, "v2", 0.0, 1.0, 11.0, until=until) is halted
    assert halted.halted_for_all("v2", "together", 11.0, until) is halted
    released = halted.release("ann", "looked into it", 12.0)
    assert not released.standing(13.0, "v2", until).halted


def test_a_calibration_put_back_does_not_end_the_halt_of_the_one_after_it() -> None:
    record = bad(NEW.judged(GUARD, "v1", 0.0, 1.0, 5.0), "v2")
    assert record.standing(11.0, "v1", 4.0).author == GUARDRAIL
    fresh = record.recalibrated("v3", 12.0, 11.5)
    assert fresh.standing(13.0, "v3", 11.5).author == CALIBRATION
    late = bad(fresh.judged(GUARD, "v3", 0.0, 1.0, 13.0), "v1")  # of a router still on the first
    assert not late.standing(40.0, "v3", 11.5).halted


def test_few_watches_are_remembered() -> None:
    record = NEW
    for at in range(MAX_WATCHES + 3):
        record = record.judged(GUARD, f"v{at}", 0.0, 1.0, float(at))
    assert [one.calibration for one in record.watches] == ["v3", "v4", "v5", "v6"]


def test_a_damaged_record_counts_as_halted_until_somebody_sets_it() -> None:
    assert DAMAGED.standing(1.0, "v1").halted
    assert DAMAGED.judged(GUARD, "v1", 0.0, 1.0, 1.0) is DAMAGED
    assert DAMAGED.recalibrated("v2", 1.0) is DAMAGED
    assert not DAMAGED.release("ann", "looked into it", 2.0).standing(2.0, "v1").halted
    assert DAMAGED.halt("ann", "why", 2.0, 1.0).standing(3.1, "v1").halted is False


def test_only_who_knows_a_record_mends_it() -> None:
    known = NEW.halt("ann", "why", 1.0)
    assert known.joined(DAMAGED) == DAMAGED.joined(known) == known
    assert NEW.joined(DAMAGED) == DAMAGED.joined(NEW) == DAMAGED


def test_a_release_counts_also_where_clocks_disagree() -> None:
    halted = bad(NEW, now=1000.0)
    released = halted.release("ann", "why", 500.0)
    assert not halted.joined(released).standing(1001.0, "v1").halted


# -- what a route's levers are held to

LADDER = ladder("small", "large")


def test_a_fixed_route_has_no_guardrail() -> None:
    fixed = route("chat", *LADDER)
    assert guard_of(fixed, "tier:small") is None
    assert calibration_version(fixed) == ""


def test_every_lever_of_today_is_judged_by_pairs() -> None:
    everything = replace(
        route("chat", *LADDER, quality=quality()), trimming=Trimming(white_space=True)
    )
    assert len(levers_of(everything)) == 3
    assert all(map(is_judged, levers_of(everything)))


def test_what_pairs_do_not_judge_has_no_guardrail() -> None:
    assert not is_judged("drafts")
    assert guard_of(route("chat", *LADDER, quality=quality()), "drafts") is None


def test_without_a_calibration_only_the_tolerance_is_allowed() -> None:
    fresh = judged_by(JudgeKind.MODEL, tolerance=0.03, run_length=500.0)
    assert guard_of(fresh, "tier:small") == Guard(tolerance=0.03, run_length=500.0)
    assert calibration_version(fresh) == ""


def judged_by(
    kind: JudgeKind, found: Calibrated | None = None, *, trims: bool = False, **changes: Any
) -> Route:
    evidence = EvidencePolicy(judge=Judging(kind))
    return route(
        "chat",
        *LADDER,
        quality=quality(calibration=found, evidence=evidence, **changes),
        trimming=Trimming(white_space=trims),
    )


def guard(of: Route, lever: str = "tier:small") -> Guard:
    found = guard_of(of, lever)
    assert found is not None
    return found


FOUND = calibrated(Rung(1.0, None))


def test_a_judge_of_the_certificates_own_terms_allows_what_was_promised() -> None:
    """The loss that was measured at calibration is part of it, and not on top of it."""
    found = replace(FOUND, certificate=replace(FOUND.certificate, loss=0.016))
    assert guard(judged_by(JudgeKind.MODEL, found)).allowed == pytest.approx(0.02)
    assert calibration_version(judged_by(JudgeKind.MODEL, found)) == found.version


def test_a_bound_above_the_tolerance_is_what_was_promised() -> None:
    found = replace(FOUND, certificate=replace(FOUND.certificate, bound=0.03))
    assert guard(judged_by(JudgeKind.MODEL, found)).allowed == pytest.approx(0.03)
    safe = replace(FOUND, certificate=replace(found.certificate, certified=False))
    assert guard(judged_by(JudgeKind.MODEL, safe)).allowed == pytest.approx(0.02)


@pytest.mark.parametrize(("seen", "level"), [(0.059, 0.059), (-0.1, 0.0), (0.99, 0.49)])
def test_a_judge_of_other_terms_has_its_level_apart(seen: float, level: float) -> None:
    held = guard(judged_by(JudgeKind.MATCH, replace(FOUND, level=seen), tolerance=0.5))
    assert held.level == pytest.approx(level)
    assert held.tolerance == 0.5


def test_the_level_was_not_measured_on_trimmed_prompts() -> None:
    route_ = judged_by(JudgeKind.MATCH, replace(FOUND, level=0.059), trims=True)
    assert guard(route_, "trimming").level == 0.0
    assert guard(route_, "cache").level == pytest.approx(0.059)


@pytest.mark.parametrize("kind", JudgeKind)
@pytest.mark.parametrize("trims", [False, True])
def test_a_judge_that_compares_finds_nothing_better_than_the_safest_answer(
    *, kind: JudgeKind, trims: bool
) -> None:
    """A tier's answer may be nearer to that of the whole prompt than the top tier's trimmed one."""
    route_ = judged_by(kind, FOUND, trims=trims)
    comparing = kind in {JudgeKind.MATCH, JudgeKind.SIMILARITY}
    lowest = {lever: guard(route_, lever).lowest_loss for lever in levers_of(route_)}
    assert lowest.pop("tier:small") == (0.0 if comparing and not trims else -1.0)
    assert set(lowest.values()) == {0.0 if comparing else -1.0}
    total = total_guard(route_)
    assert total is not None
    assert total.lowest_loss == (0.0 if comparing else -1.0)


def test_the_share_of_worse_answers_is_watched_where_it_was_measured() -> None:
    found = replace(FOUND, spare=0.02)
    by_model, by_match = (judged_by(kind, found) for kind in (JudgeKind.MODEL, JudgeKind.MATCH))
    assert guard(by_model).spare == 0.02
    assert guard(by_model, "cache").spare is None  # of stored answers it was not
    assert guard(judged_by(JudgeKind.MODEL, FOUND)).spare is None
    # What is the same or not is lost wholly or not at all.
    assert guard(by_match).spare == guard(by_match, "cache").spare == 0.0
    assert guard(judged_by(JudgeKind.MATCH, found, trims=True)).spare == 0.02


def test_several_levers_are_held_to_the_same_together_as_each_alone() -> None:
    found = replace(FOUND, level=0.059, spare=0.02)
    total = total_guard(judged_by(JudgeKind.SIMILARITY, found))
    assert total is not None
    assert (total.tolerance, total.level) == (0.02, pytest.approx(0.059))
    assert total.spare is None  # stored answers are among them
    tiers = ladder("tiny", "small", "large")
    three = route("chat", *tiers, quality=quality(calibration=found), cache=CachePolicy())
    three_total = total_guard(three)
    assert three_total is not None
    assert three_total.spare == 0.0


def test_one_lever_alone_is_no_total() -> None:
    assert total_guard(route("chat", *LADDER, quality=quality(), cache=CachePolicy())) is None
    assert total_guard(route("chat", *LADDER)) is None
