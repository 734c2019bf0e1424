"""RouterService on the wire: messages in, messages out, and the record each request leaves."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from services.common.calls import note_end
from services.common.credentials import current_identity
from services.common.errors import DeadlineExceeded, ServiceError
from services.common.refusal import Refusal
from services.router.admission.long_work import LONG_PROMPT, NEW_FORM, LongWork
from services.router.admission.permits import Permit, Permits
from services.router.admission.rights import require_priority
from services.router.evidence.outcomes import Outcomes
from services.router.fleet.fleet import Fleet
from services.router.ledger.request_record import Records
from services.router.policy.decision import Decision
from services.router.policy.line import Priority
from services.router.policy.routes import Policies
from services.router.request.context import Listener, RequestState
from services.router.request.entry import Entry
from services.router.request.path import RequestPath
from services.router.request.unread import Reader, SlowReaders
from services.router.routes.in_force import InForce
from services.router.wire.levers import LeverCalls
from services.router.wire.messages import (
    add_charges,
    decision_message,
    refusal_message,
    route_message,
    summary_message,
)
from services.router.wire.requests import Request, check, is_long, takes_long, weight

CHECK_SECONDS = 30.0
"""How long a request without a deadline waits to be checked."""

DEADLINE_SLACK_SECONDS = 0.1
"""gRPC cancels a call at its deadline by a clock of its own, some milliseconds from ours."""


Listing = pb.ListRoutesRequest | pb.ListLeversRequest
Plain = pb.RecordOutcomeRequest | pb.ListRoutesRequest | pb.ListLeversRequest
"""Requests without a prompt."""


def _with_permit(call: Any) -> Any:
    """A call that only those get who may enter; leave to be in is settled at its end.

    Operators list levers and routes, and set levers, whoever fills the router.
    """

    @functools.wraps(call)
    async def within(servicer: "RouterServicer", request: Any, context: Any) -> Any:
        if isinstance(request, Listing) and current_identity().may_operate:
            return await call(servicer, request, context)
        with servicer.enter(request, context) as permit:
            response = await call(servicer, request, context)
            permit.settle(response.ByteSize())
            return response

    return within


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Every call of the contract."""

    def __init__(
        self,
        *,
        entry: Entry,
        path: RequestPath,
        in_force: InForce,
        fleet: Fleet,
        records: Records,
        outcomes: Outcomes,
        levers: LeverCalls,
        refusal: Callable[[], Refusal | None],
        permits: Permits,
        checks: LongWork,
        slow_readers: SlowReaders,
        max_prompt_characters: int,
        clock: Callable[[], float],
    ) -> None:
        """Takes the parts.

        Args:
            entry: lets requests in.
            path: what they go through.
            in_force: the policies.
            fleet: what replicas there are.
            records: what requests leave.
            outcomes: what callers say of answers.
            levers: the calls about levers.
            refusal: why the policy files are not in force; None where they are.
            permits: to be in the router.
            checks: of long requests.
            slow_readers: ends the calls of those who do not read.
            max_prompt_characters: longest prompt taken.
            clock: seconds that only grow.
        """
        self._refusal = refusal
        self._entry = entry
        self._path = path
        self._in_force = in_force
        self._fleet = fleet
        self._records = records
        self._outcomes = outcomes
        self._levers = levers
        self._permits = permits
        self._checks = checks
        self._slow_readers = slow_readers
        self._longest = max_prompt_characters
        self._clock = clock

    # grpc.aio takes a coroutine that writes as well as a generator; with one, a caller who hangs
    # up cancels exactly the await we are in.
    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: Any
    ) -> None:
        """See router.proto."""
        refusal: ServiceError | None = None
        last = pb.GenerateResponse()
        with self.enter(request, context) as permit:
            state = await self._begin(request, context, streaming=True)
            listener = _StreamListener(context, state, self._clock)
            self._slow_readers.readers.add(listener.reader)
            try:
                await self._travel(state, listener, listener.reader)
                summary = summary_message(state, listener.decision, self._clock())
                last.finished.summary.CopyFrom(summary)
            except ServiceError as error:
                refusal = replace(error)  # without what it was raised from
            finally:
                self._slow_readers.readers.discard(listener.reader)
            permit.settle(last.ByteSize())
        first = listener.first
        # The end waits for who does not read, for as long as the call lasts: nothing else may.
        del request, state, listener
        if refusal is None:
            await context.write(last)
            return
        if first is not None and not first.done():
            await asyncio.wait((first,))
        raise refusal

    @_with_permit
    async def Complete(self, request: pb.CompleteRequest, context: Any) -> pb.CompleteResponse:
        """See router.proto."""
        state = await self._begin(request, context, streaming=False)
        await self._travel(state, _Silent())
        decision = decision_message(state.decision)
        summary = summary_message(state, decision, self._clock())
        return pb.CompleteResponse(text=state.answer.text, summary=summary)

    @_with_permit
    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        """See router.proto."""
        state = await self._begin(request, context, streaming=False)
        most = await self._path.explain(state)
        return pb.ExplainResponse(
            decision=decision_message(state.decision),
            prompt_tokens=state.answer.prompt_tokens,
            max_micro_usd=most,
        )

    def enter(self, request: Request | Plain, context: Any) -> Permit:
        """Lets the running call in.

        Raises:
            BadRequest: its lists are longer than those of any request may be.
            Overloaded: too many are in already.
        """
        tenant = current_identity().tenant
        try:
            permit = self._permits.enter(tenant, _size(request))
        except ServiceError as error:
            self._records.refused(tenant, _known(request, self._in_force.now), error)
            raise
        context.add_done_callback(lambda _: permit.leave())
        return permit

    @_with_permit
    async def ListRoutes(
        self, request: pb.ListRoutesRequest, context: Any
    ) -> pb.ListRoutesResponse:
        """See router.proto."""
        identity, policies = current_identity(), self._in_force.now
        tenant, refusal = identity.tenant, self._refusal()
        return pb.ListRoutesResponse(
            refusal=None
            if refusal is None
            else refusal_message(refusal, operator=identity.may_operate),
            policy_version=policies.version,
            routes=[
                route_message(route, self._fleet, operator=identity.may_operate)
                for _, route in sorted(policies.routes.items())
                if route.admits(tenant)
            ],
        )

    @_with_permit
    async def RecordOutcome(
        self, request: pb.RecordOutcomeRequest, context: Any
    ) -> pb.RecordOutcomeResponse:
        """See router.proto."""
        return await self._outcomes.record(request, current_identity().tenant)

    @_with_permit
    async def ListLevers(
        self, request: pb.ListLeversRequest, context: Any
    ) -> pb.ListLeversResponse:
        """See router.proto."""
        return await self._levers.list_levers(request, current_identity())

    async def SetLever(self, request: pb.SetLeverRequest, context: Any) -> pb.SetLeverResponse:
        """See router.proto."""
        return await self._levers.set_lever(request, current_identity())

    async def _begin(self, request: Request, context: Any, *, streaming: bool) -> RequestState:
        """Checks who asks for what and in which time.

        The time first: nothing else is looked at of what could not be answered in it.

        Raises:
            ServiceError: the request is refused.
        """
        arrived, left = self._clock(), context.time_remaining()
        identity, compiled = current_identity(), self._in_force.compiled
        tenant = identity.tenant
        try:
            asked = compiled.policies.routes.get(request.route)
            if asked is not None and asked.admits(tenant):  # else `check` says so
                self._entry.seconds(asked, left)
            work = functools.partial(check, request, tenant, compiled, longest=self._longest)
            if takes_long(request):
                checked = await self._checks.run(
                    work,
                    request.ByteSize(),
                    tenant=tenant,
                    priority=Priority.INTERACTIVE,
                    until=arrived + (CHECK_SECONDS if left is None else left),
                    kind=LONG_PROMPT if is_long(request) else NEW_FORM,
                )
            else:
                checked = work()
            require_priority(identity, checked.priority)
            return self._entry.enter(
                checked, tenant, arrived=arrived, left=left, streaming=streaming
            )
        except ServiceError as error:
            self._records.refused(tenant, _known(request, compiled.policies), error)
            raise

    async def _travel(
        self, state: RequestState, listener: Listener, reader: Reader | None = None
    ) -> None:
        """Sends a request on its way and notes how it ended.

        Args:
            state: of the request.
            listener: its caller.
            reader: the same where it takes the answer in pieces.
        """
        status, context = "OK", state.context
        # gRPC cancels this task when the caller's own deadline passes.
        left = context.until - self._clock() if context.until_is_ours else None
        try:
            async with asyncio.timeout(left) as time:
                if reader is not None:
                    reader.end = functools.partial(end_now, time)
                await self._path.answer(state, listener)
        except TimeoutError:
            status = "DEADLINE_EXCEEDED"
            if reader is not None and reader.given_up is not None:
                raise DeadlineExceeded(
                    reader.given_up.value,
                    reason="NOT_READ",
                    handle=context.handle,
                ) from None
            raise DeadlineExceeded(
                "the deadline passed before the answer was complete", handle=context.handle
            ) from None
        except ServiceError as error:
            status = error.code.name
            error.handle = context.handle
            raise
        except asyncio.CancelledError:
            late = self._clock() >= context.until - DEADLINE_SLACK_SECONDS
            status = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except BaseException:
            status = "INTERNAL"
            raise
        finally:
            state.end(status, self._clock())
            self._records.ended(state)
            state.leave()


class _StreamListener:
    """Sends the answer's events as they come.

    Attributes:
        reader: its caller.
        first: writes the first message, once there is one.
        decision: as the caller was told of it.
    """

    def __init__(self, context: Any, state: RequestState, clock: Callable[[], float]) -> None:
        self._write = context.write
        self._state = state
        self._clock = clock
        self._event = pb.GenerateResponse()
        self._delta = self._event.delta
        self.first: asyncio.Task[None] | None = None
        self.reader = Reader(state, end=lambda: None)
        self.decision = pb.Decision()

    async def started(self, decision: Decision) -> None:
        self.decision = decision_message(decision)
        add_charges(self.decision, self._state)
        started = pb.Started(handle=self._state.context.handle, decision=self.decision)
        self.reader.since = self._clock()
        # A task of its own: gRPC sends no status as long as the first message is not sent, and
        # only knows that it was when whoever writes it waits to the end.
        self.first = asyncio.create_task(self._write(pb.GenerateResponse(started=started)))
        self.first.add_done_callback(note_end)
        await asyncio.shield(self.first)
        self.reader.since = None

    async def piece(self, text: str, tokens: int) -> None:
        # gRPC serialises before it waits, so one message serves for all pieces.
        self._delta.text, self._delta.tokens = text, tokens
        self.reader.since = self._clock()
        await self._write(self._event)
        self.reader.since = None


class _Silent:
    """For whole answers: the attempt keeps the pieces."""

    async def started(self, decision: Decision) -> None:
        pass

    async def piece(self, text: str, tokens: int) -> None:
        pass


def end_now(time: asyncio.Timeout) -> None:
    """Ends what runs under a timeout now, unless its own time has just ended it."""
    if not time.expired():
        time.reschedule(asyncio.get_running_loop().time())


def _size(request: Request | Plain) -> int:
    """Bytes that a request counts for."""
    return request.ByteSize() if isinstance(request, Plain) else weight(request)


def _known(request: Request | Plain, policies: Policies) -> str:
    """The route's name if there is such a route: callers must not invent label values."""
    route = "" if isinstance(request, pb.ListRoutesRequest) else request.route
    return route if route in policies.routes else ""
