"""What is decided, planned and kept has a message for each of its kinds."""

import math

import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.errors import BadRequest
from services.scaler.history.decisions import Decided
from services.scaler.history.versions import Source, Version
from services.scaler.policy.plans import (
    Assumed,
    BoundShare,
    Course,
    Difference,
    Plan,
    PoolPlan,
    Verdict,
)
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.wire.decisions import decision_message
from services.scaler.wire.policies import version_message
from services.scaler.wire.scenes import scene_of
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
    assert (pool.HasField("live"), pool.HasField("replica")) == (False, False)
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
    version = Version(3, "ab", 1.0, source, "ada", "note", "anyway", 2, "unknown", "dark")
    told, hidden = (version_message(version, operator=one) for one in (True, False))
    assert pb.PolicySource.Name(told.source) == f"POLICY_SOURCE_{source.upper()}"
    assert (told.author, told.note, told.anyway_reason) == ("ada", "note", "anyway")
    assert (hidden.author, hidden.note, hidden.anyway_reason) == ("", "", "")
    assert hidden.rolled_back_to == 2
    assert told.verdict == hidden.verdict == pb.PLAN_VERDICT_UNKNOWN
    assert (told.because, hidden.because) == ("dark", "")


def test_differences_and_replicas_of_a_plan_are_told():
    replica = Assumed(Capacity(a=0.5, b=0.25), 61.5, 0.125, "measured")
    one = Difference(1.5, 2.0, 1, 2, "one", "two")
    plan = Plan(Verdict.UNKNOWN, "", {"p": PoolPlan(differences=(one,), differences_found=7,
                replica=replica)}, reason_needed=True, page="<p>")  # fmt: skip
    message = plan_message(plan)
    (pool,) = message.pools
    (told,) = pool.differences
    assert (message.reason_needed, message.page, pool.differences_found) == (True, "<p>", 7)
    assert (told.since.nanos, told.until.seconds) == (500_000_000, 2)
    assert (told.live_size, told.planned_size, told.live_why, told.planned_why) == (
        (1, 2, "one", "two")
    )
    assert (pool.replica.a, pool.replica.b, pool.replica.start_spread) == (0.5, 0.25, 0.125)
    assert (pool.replica.start.seconds, pool.replica.source) == (61, "measured")


def scene(**more):
    return scene_of(pb.SimulateRequest(trace=b"t", **more))


def test_what_is_to_be_simulated_is_read():
    found = scene(
        rows=b"r", rows_of={"gpu": "h100_sxm"}, beside=["dynamo"], page=True,
        generator=pb.GENERATOR_STEPS, replica=pb.AssumedReplica(start_spread=0.5),
    )  # fmt: skip
    assert (found.trace, found.times, found.generator) == ("t", 1.0, "steps")
    assert (found.rows, found.rows_of, found.beside) == ("r", {"gpu": "h100_sxm"}, ("dynamo",))
    assert (found.replica, found.page) == ({"start_spread": 0.5}, True)
    assert scene(replica=pb.AssumedReplica(a=0.5)).replica == {
        "capacity": {"a": 0.5, "b": 0.0, "c": 0.0, "p": 0.0}
    }


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"beside": ["best"]}, "beside"),
        ({"beside": ["kpa", "kpa"]}, "beside"),
        ({"rows": b"r", "rows_of": {"colour": "red"}}, "rows_of"),
        ({"rows_of": {"gpu": "h100_sxm"}}, "rows_of"),
        ({"rows": b"r", "replica": pb.AssumedReplica(a=0.1)}, "rows"),
        ({"rows": b"\xff"}, "rows"),
        ({"replica": pb.AssumedReplica(b=0.1)}, "replica"),
        ({"replica": pb.AssumedReplica(a=math.nan)}, "replica"),
        ({"replica": pb.AssumedReplica(start_spread=9.0)}, "replica.start_spread"),
        ({"replica": pb.AssumedReplica(start={"seconds": -1})}, "replica.start"),
        ({"times": math.nan}, "times"),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_field(more, field):
    with pytest.raises(BadRequest) as refused:
        scene(**more)
    assert [one.name for one in refused.value.violations] == [field]
