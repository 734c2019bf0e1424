"""Why a run failed is logged without what its caller sent."""

from services.common.errors import BadRequest, Unavailable, Violation
from services.router.ports import ReplicaFailed, brief


def test_a_refusal_is_told_by_its_reason_or_code() -> None:
    echoed = BadRequest.of(Violation("prompt", "the engine refuses it: my words"))
    assert "my words" not in brief(echoed)
    assert brief(Unavailable("the replicas are away", reason="NO_REPLICA")) == "NO_REPLICA"
    assert brief(Unavailable("away")) == "UNAVAILABLE"
    assert brief(ReplicaFailed("the replica is gone", lost=True)) == "the replica is gone"
