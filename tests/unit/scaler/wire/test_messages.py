"""What is decided, planned and kept has a message for each of its kinds."""

import math

import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.scaler.history.decisions import Decided
from services.scaler.history.versions import Source, Version
from services.scaler.policy.plans import BoundShare, Course, Plan, PoolPlan, Verdict
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.wire.decisions import decision_message
from services.scaler.wire.policies import version_message
from services.scaler.wire.trials import plan_message


@pytest.mark.parametrize("bound", Bound)
def test_every_kind_of_constraint_has_its_name(bound):
    one = Decided("p", 1.5, Decision(2, 1, (Constraint(bound, 2, "x", 0.5),)))
    (constraint,) = decision_message(one, operator=True).constraints
    assert pb.Bound.Name(constraint.bound) == f"BOUND_{bound.upper()}"
    assert (constraint.value, constraint.HasField("limit")) == (0.5, False)


def test_a_decision_has_its_money_and_its_time():
    message = decision_message(
        Decided("p", 1.5, Decision(2, 1, usd_per_hour=2.5, usd_per_hour_before=1.25), 7),
        operator=True,
    )
    assert (message.micro_usd_per_hour, message.micro_usd_per_hour_before) == (2_500_000, 1_250_000)
    assert (message.size, message.size_before, message.policy_version) == (2, 1, 7)
    assert (message.decided_at.ToJsonString(), message.HasField("demand")) == (
        ("1970-01-01T00:00:01.500Z", False)
    )


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf, 1e30])
def test_money_that_is_none_is_not_known(figure):
    one = Decided("p", 1.5, Decision(2, 1, usd_per_hour=figure))
    message = decision_message(one, operator=True)
    assert message.micro_usd_per_hour == 0


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_name(verdict):
    message = plan_message(Plan(verdict, "because", {}))
    assert pb.PlanVerdict.Name(message.verdict) == f"PLAN_VERDICT_{verdict.upper()}"
    assert not message.HasField("since")


def test_a_pool_of_one_file_alone_has_one_course():
    course = Course(1.5, 3.0, None, 0.5, 0.25, 0.125, 4)
    (pool,) = plan_message(Plan(Verdict.UNKNOWN, "", {"p": PoolPlan(planned=course)})).pools
    assert (pool.HasField("live"), pool.HasField("differ_most_at")) == (False, False)
    assert (pool.planned.micro_usd, pool.planned.HasField("attainment")) == (3_000_000, False)
    assert (pool.planned.mean_wait.nanos, pool.planned.max_size) == (125_000_000, 4)


@pytest.mark.parametrize("bound", Bound)
def test_what_decided_the_sizes_of_a_trial_has_its_name(bound):
    course = Course(1.5, 3.0, None, 0.5, 0.25, 0.125, 4, (BoundShare(bound.value, "gpus", 0.25),))
    message = plan_message(Plan(Verdict.SAME, "", {}, live=course, planned=course))
    (share,) = message.planned.bounds
    assert pb.Bound.Name(share.bound) == f"BOUND_{bound.upper()}"
    assert (share.detail, share.share) == ("gpus", 0.25)
    assert message.live == message.planned
    assert not plan_message(Plan(Verdict.SAME, "", {})).HasField("planned")


@pytest.mark.parametrize("source", Source)
def test_every_source_has_its_name_and_authors_are_for_operators(source):
    version = Version(3, "ab", 1.0, source, "ada", "note", "anyway", 2)
    told, hidden = (version_message(version, operator=one) for one in (True, False))
    assert pb.PolicySource.Name(told.source) == f"POLICY_SOURCE_{source.upper()}"
    assert (told.author, told.note, told.anyway_reason) == ("ada", "note", "anyway")
    assert (hidden.author, hidden.note, hidden.anyway_reason) == ("", "", "")
    assert hidden.rolled_back_to == 2
