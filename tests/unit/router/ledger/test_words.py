"""Words of the ledger: the router knows the same ones as whoever reads it."""

from pennyweight.ledger.schema import CAUSES, VERDICTS
from services.router.request.attempt import Ending
from services.router.request.plan import Cause


def test_causes_and_verdicts_are_those_of_the_schema() -> None:
    assert {cause.value for cause in Cause} == set(CAUSES)
    assert {ending.value for ending in Ending} == set(VERDICTS)
