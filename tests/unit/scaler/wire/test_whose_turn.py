"""Operators of one tenant take turns at checks and trials as those of several do."""

import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.caller_turns import CallerTurns
from services.common.credentials import Identity, Role
from services.common.errors import Overloaded
from services.scaler.wire.policies import PolicyCalls
from services.scaler.wire.trials import TrialCalls
from tests.unit.scaler.changes.test_policies import ASKED, Answers, scene, text

__all__ = ("scene",)

ADA, BOB = (Identity("acme", Role.OPERATOR, key_id=key) for key in ("0a", "0b"))


class Taken(Answers):
    """Trials at which the turn of each is taken, which keep whose they were."""

    def __init__(self):
        super().__init__()
        self.callers = []

    async def run(self, question, progress=lambda _: None, *, caller=""):
        self.callers.append(caller)
        raise Overloaded("another question of the caller waits", reason="TRIAL_RUNNING")


async def test_each_operator_has_turns_of_its_own_at_all_that_takes_one(scene):
    await scene.policies.apply(text(2), ASKED)
    trials = scene.trying._trials = scene.trying._checks = scene.trying._urgent_checks = Taken()
    policies = PolicyCalls(scene.policies, scene.versions, CallerTurns())
    tried = TrialCalls(scene.trying)
    for who in (ADA, BOB):
        calls = (
            policies.validate(pb.ValidatePolicyRequest(content=text(1)), who),
            policies.apply(
                pb.ApplyPolicyRequest(content=text(1), author="a", note="n"),
                who,
            ),
            policies.roll_back(pb.RollbackPolicyRequest(author="a"), who),
            anext(tried.plan(pb.PlanPolicyRequest(content=text(1)), who)),
            anext(tried.simulate(pb.SimulateRequest(trace=b"x"), who)),
        )
        for call in calls:
            with pytest.raises(Overloaded):
                await call
    assert trials.callers == ["key 0a"] * 5 + ["key 0b"] * 5
