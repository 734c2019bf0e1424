"""Thresholds that are proposed, and what they do with evidence."""

from dataclasses import replace
from itertools import pairwise

import pytest

from services.router.calibrate.candidates import measured, propose
from services.router.calibrate.cascade import EvidenceTable, outcome
from services.router.policy.calibration import Pair, Rung, Thresholds
from services.router.policy.certainty import Measure
from tests.making.drawn import drawn


@pytest.mark.parametrize("skip", [-1.0, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("accept", [None, -1.0])
@pytest.mark.parametrize("valid", [True, False])
def test_what_is_not_known_of_evidence_counts_as_a_rung_counts_it(
    skip: float, accept: float | None, *, valid: bool
) -> None:
    rung = Rung(skip, accept)
    for gain in (None, 0.0, 0.2, 0.4, 0.7):
        for certainty in (None, -2.0, -1.0, -0.5):
            pair = Pair((gain,), (certainty,), (0.0, 1.0), (1.0, 10.0), (valid,))
            seen = outcome(EvidenceTable.of([pair]), Thresholds((rung,)), 0.0)
            runs = rung.enters(gain)
            stands = runs and rung.accepts(certainty, valid=valid)
            assert seen.ran[0].tolist() == [runs, not stands]
            assert seen.answered[0] == (0 if stands else 1)


def test_evidence_of_nothing_or_of_two_ladders_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        EvidenceTable.of([])
    three = Pair((0.1, 0.1), (-1.0, -1.0), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="same number"):
        EvidenceTable.of([*drawn(1, 2), three])
    with pytest.raises(ValueError, match="as many rungs"):
        outcome(EvidenceTable.of(drawn(1, 2)), Thresholds.safe(3), 0.0)


def test_candidates_go_from_safe_to_aggressive() -> None:
    evidence = EvidenceTable.of(drawn(3, 800, signal=0.3))
    found = propose(evidence, Measure.MEAN, 0.05, 0.2)
    assert len(found) > 5
    for one, next_one in pairwise(found):
        assert one.cost >= next_one.cost
    assert found[0].loss < found[-1].loss
    assert all(one.loss < 0.2 and one.cost < evidence.top_cost for one in found)
    again = measured(evidence, found[0].thresholds, 0.05)
    assert (again.loss, again.cost) == (found[0].loss, found[0].cost)


@pytest.mark.parametrize("unknown", [{}, {"gains": (None,)}, {"certainties": (None,)}])
def test_from_the_top_tier_alone_to_the_cheapest_candidate_no_step_is_large(
    unknown: dict[str, object],
) -> None:
    """A proof that fails at one falls back to the one before: there had better be one near by."""
    pairs = [replace(pair, **unknown) for pair in drawn(3, 800)]  # type: ignore[arg-type]
    evidence = EvidenceTable.of(pairs)
    costs = [one.cost for one in propose(evidence, Measure.MEAN, 0.05, 0.2)]
    steps = [one - other for one, other in pairwise((evidence.top_cost, *costs))]
    assert min(costs) < 0.3 * evidence.top_cost
    assert max(steps) < 0.06 * evidence.top_cost
