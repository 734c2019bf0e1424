"""ListDecisions and WatchDecisions: any known caller may ask.

The record is for operators, and so is who set an override.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.caller_turns import CallerTurns
from services.common.credentials import Identity, Role
from services.common.durations import NANOSECONDS, nanoseconds_of, set_time
from services.common.errors import BadRequest, Overloaded, Unavailable, Violation
from services.scaler.history.decisions import Decided, DecisionLog, Wanted
from services.scaler.policy.sizing.override import unsigned
from services.scaler.policy.sizing.views import Constraint

MOST, USUAL = 1000, 100
HEARTBEAT_SECONDS = 2.0
MOST_OF_ONE = 16
"""Streams of one tenant whose key is no operator's: the others' are not for one to take."""
MICRO, MAX_USD = 1_000_000, 1e12


class DecisionCalls:
    """The calls about decisions; see scaler.proto."""

    def __init__(self, decisions: DecisionLog, turns: CallerTurns) -> None:
        """`turns` are those of all long answers."""
        self._turns = turns
        self._decisions = decisions
        self._watching: Counter[str] = Counter()  # of callers, by tenant

    async def list_decisions(
        self, request: pb.ListDecisionsRequest, identity: Identity
    ) -> pb.ListDecisionsResponse:
        """Lists decisions: what holds now, or from the record, which takes a search.

        Raises:
            Forbidden: the caller is no operator and asks for the record.
            BadRequest: with all violations.
            Overloaded: too many searches of this caller wait.
            Unavailable: the record cannot be read.
        """
        if not request.current:
            identity.require(Role.OPERATOR)
        since, until = _checked(request)
        if request.current:
            operator = identity.may_operate
            current = self._decisions.current(request.pool)
            return pb.ListDecisionsResponse(
                decisions=await self._messages(current, identity, operator=operator)
            )
        wanted = Wanted(request.pool, since, until, request.max_results or USUAL)
        try:
            found = await self._decisions.find(wanted, identity.share)
        except OSError as error:
            message = f"the record of decisions cannot be read: {error.strerror}"
            raise Unavailable(message, reason="HISTORY_UNREAD") from error
        return pb.ListDecisionsResponse(
            decisions=await self._messages(found.decisions, identity, operator=True),
            missing=found.missing,
            damaged=found.damaged,
            more=found.more,
        )

    async def _messages(
        self, decisions: Sequence[Decided], identity: Identity, *, operator: bool
    ) -> list[pb.Decision]:
        make = partial(decision_message, operator=operator)
        return await self._turns.made(identity.share, decisions, make)

    async def watch_decisions(
        self, request: pb.WatchDecisionsRequest, identity: Identity
    ) -> AsyncGenerator[pb.WatchDecisionsResponse, None]:
        """Streams decisions, and a sign of life.

        Raises:
            Overloaded: there are too many watchers, others have fewer, or this one is too slow.
            Unavailable: the scaler is going away.
        """
        watching = self._decisions.watch(request.pool, identity.share)
        with self._place(identity), watching as watcher:
            while True:
                decided = await watcher.next(HEARTBEAT_SECONDS)
                if decided is None:
                    yield pb.WatchDecisionsResponse()
                elif request.pool in ("", decided.pool):
                    message = decision_message(decided, operator=identity.may_operate)
                    yield pb.WatchDecisionsResponse(decision=message)

    @contextmanager
    def _place(self, identity: Identity) -> Iterator[None]:
        """A place among the streams.

        Raises:
            Overloaded: the caller's tenant has as many as it may.
        """
        if identity.may_operate:
            yield
            return
        if self._watching[identity.tenant] >= MOST_OF_ONE:
            message = f"{MOST_OF_ONE} streams of decisions are enough for one tenant"
            raise Overloaded(message, reason="TOO_MANY_WATCHERS", retry_after_seconds=5.0)
        self._watching[identity.tenant] += 1
        try:
            yield
        finally:
            self._watching[identity.tenant] -= 1
            self._watching += Counter()  # without those that have none


def decision_message(decided: Decided, *, operator: bool) -> pb.Decision:
    """A decision as a message; who set an override is told to operators alone."""
    decision = decided.decision if operator else unsigned(decided.decision)
    message = pb.Decision(
        pool=decided.pool,
        size=decision.size,
        size_before=decision.before,
        constraints=[_constraint(one) for one in decision.constraints],
        micro_usd_per_hour=_micro(decision.usd_per_hour),
        micro_usd_per_hour_before=_micro(decision.usd_per_hour_before),
        demand=decision.demand,
        why=decision.why,
        why_not_fewer=decision.why_not_fewer,
        why_not_more=decision.why_not_more,
        policy_version=decided.version,
    )
    set_time(message.decided_at, decided.at)
    return message


def _micro(usd: float) -> int:
    """Micro-dollars; 0 where they are not known."""
    return round(usd * MICRO) if 0.0 < usd < MAX_USD else 0


def _constraint(constraint: Constraint) -> pb.Constraint:
    return pb.Constraint(
        bound=pb.Bound.Value(f"BOUND_{constraint.bound.name}"),
        detail=constraint.detail,
        size=constraint.size,
        value=constraint.value,
        limit=constraint.limit,
    )


def _checked(request: pb.ListDecisionsRequest) -> tuple[float | None, float | None]:
    """The first and the last moment that are asked for, in seconds since 1970.

    Raises:
        BadRequest: with all violations.
    """
    wrong: list[Violation] = []
    if not 0 <= request.max_results <= MOST:
        wrong.append(Violation("max_results", f"must be 0 to {MOST}, got {request.max_results}"))

    def moment(name: str, said: Timestamp) -> float | None:
        nanoseconds = nanoseconds_of(said)
        if nanoseconds is None:
            wrong.append(Violation(name, "must be a moment in the years 1 to 9999"))
            return None
        return nanoseconds / NANOSECONDS

    since = moment("since", request.since) if request.HasField("since") else None
    until = moment("until", request.until) if request.HasField("until") else None
    if since is not None and until is not None and since > until:
        wrong.append(Violation("since", "must not be after until"))
    if wrong:
        raise BadRequest.of(*wrong)
    return since, until
