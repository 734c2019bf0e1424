"""What is held against replicas that fail, and against requests over which they are lost."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from services.common.errors import InternalError
from services.router.fleet.fleet import Fleet
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.patience import is_held_against, shared
from services.router.policy.poison import PoisonMarks
from services.router.ports import Asked, ReplicaFailed
from services.router.request.attempt import Attempt
from services.router.request.company import Company
from services.router.request.context import RequestState

log = structlog.get_logger()


class Poisonous(InternalError):
    """Two replicas fell silent or died over the request: it is not carried to another."""


@dataclass(frozen=True)
class Trouble:
    """Notes trouble and says what follows; state of the process.

    Attributes:
        marks: requests over which replicas were lost.
        clock: seconds that only grow.
        company: who runs beside whom.
    """

    fleet: Fleet
    load: LoadWindow
    metrics: Metrics
    marks: PoisonMarks
    clock: Callable[[], float]
    company: Company = field(default_factory=Company)

    def refuse_poison(self, state: RequestState) -> None:
        """Refuses a request over which replicas were lost."""
        context = state.context
        left = self.marks.seconds_left(
            context.tenant, partial(_digest, context.checked.asked), self.clock()
        )
        if left > 0.0:
            raise self.poisonous(left)

    def poisonous(self, seconds: float) -> Poisonous:
        """The error of a request that is not run for so long; counts it."""
        self.metrics.poisonous.inc()
        return Poisonous(
            f"replicas fell silent or died over this request: it is not run for {seconds:.0f} s",
            reason="REPLICAS_LOST",
            retry_after_seconds=seconds,
        )

    def _lost_over(self, state: RequestState, attempt: Attempt) -> bool:
        """Notes that a replica was lost over a request; says whether it is poisonous."""
        if not attempt.trusting:  # it was in trouble before
            return False
        suspects = self.company.suspects(state, attempt)
        if not suspects:
            return False
        context = state.context
        log.warning(
            "a replica was lost over a request",
            request_id=context.request_id,
            tenant=context.tenant,
            replica=attempt.replica,
        )
        digest = _digest(context.checked.asked)
        others = suspects - {context.tenant}
        return self.marks.note(context.tenant, digest, attempt.replica, self.clock(), others)

    def hold_against(self, state: RequestState, attempt: Attempt, failure: ReplicaFailed) -> bool:
        """Has others avoid a replica that is in trouble, and says whether the request is to blame.

        A replica that is silent for a caller in a hurry may be well: then it is its silence towards
        all of them that counts, until it says a word or nothing is asked of it any more.
        """
        if failure.silent:
            return self.note_silence(state, attempt, self.slow_seconds(attempt))
        if failure.lost:
            self.fleet.failed(attempt.place.replica)
        return failure.died and self._lost_over(state, attempt)

    def note_silence(self, state: RequestState, attempt: Attempt, slow: float) -> bool:
        """Notes that a replica has said nothing since the attempt began, or since its last word.

        `slow` is how long nearly all answers of the tier take at most.

        Returns:
            whether the request is to blame.
        """
        replica, now = attempt.place.replica, self.clock()
        since = attempt.began if attempt.heard_at is None else attempt.heard_at
        usual = attempt.patience()
        if is_held_against(now - replica.silence(since), usual_seconds=usual, slow=slow):
            self.fleet.failed(replica, silent=True)
        # A request that waited for a moment alone is not why the replica was silent before.
        alone = is_held_against(now - since, usual_seconds=usual, slow=slow)
        return alone and self._lost_over(state, attempt)

    def note_word(self, attempt: Attempt) -> None:
        """Notes that the replica has said something: one that was silent before is so no more."""
        replica = attempt.place.replica
        if attempt.heard_at is not None:
            replica.heard(attempt.heard_at)
        if replica.is_silent and not attempt.trusting:
            self.fleet.succeeded(replica)

    def note_left(self, attempt: Attempt) -> None:
        """Notes that the caller has gone, where the attempt tries whether its replica is well.

        What it has said so far has to do: otherwise others would avoid it until the next trial.
        """
        if attempt.heard_at is not None and not attempt.trusting:
            self.fleet.succeeded(attempt.place.replica)

    def slow_seconds(self, attempt: Attempt) -> float:
        """What nearly all answers of the tier took at most, lately; 0 where nobody knows."""
        return self.load.slow_run_seconds(attempt.plan.step.tier.name, self.clock()) or 0.0

    def patience(self, state: RequestState, attempt: Attempt) -> float:
        """How long the replica may stay silent now, in seconds."""
        seconds = attempt.patience()
        if attempt.committed or not attempt.movable or not self._can_move(state, attempt):
            return seconds
        left, slow = attempt.plan.deadline - self.clock(), self.slow_seconds(attempt)
        tier, doubted = attempt.plan.step.tier, not attempt.trusting
        return shared(tier, seconds, left=left, slow=slow, doubted=doubted)

    def _can_move(self, state: RequestState, attempt: Attempt) -> bool:
        """Whether an attempt could be made where none has been."""
        step, tried = attempt.plan.step, [one.replica for one in state.attempts]
        if self.fleet.can_answer(step.tier, avoid=tried):
            return True
        return step.checked and self.elsewhere(state)

    def elsewhere(self, state: RequestState) -> bool:
        """Whether a tier behind the one whose turn it is can answer now."""
        behind = state.cascade.behind() if state.cascade is not None else ()
        return any(self.fleet.can_answer(tier) for tier in behind)


def _digest(asked: Asked) -> bytes:
    """Names what is asked, whoever asks."""
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).digest()
