"""ListLevers and SetLever: who may, what is asked, and the answer as messages.

Callers see the levers of the routes they may use. Operators, and our own services, see all and may
halt and release them.
"""

import structlog

from pennyweight.router.v1 import router_pb2 as pb
from services.common.credentials import Identity, Role
from services.common.durations import seconds_of, set_time
from services.common.errors import BadRequest, NotFound, Violation
from services.common.notes import MAX_AUTHOR, MAX_REASON, text_violations
from services.router.levers.board import SeenLever, SharedLeverBoard
from services.router.policy.guardrail import Guard, GuardState
from services.router.policy.lever_record import RESERVED_AUTHORS
from services.router.policy.levers import levers_of
from services.router.policy.routes import Route
from services.router.routes.in_force import InForce

log = structlog.get_logger()

MAX_HALT_SECONDS = 365 * 86_400


class LeverCalls:
    """The calls about levers; see router.proto."""

    def __init__(self, levers: SharedLeverBoard, in_force: InForce) -> None:
        self._levers = levers
        self._in_force = in_force

    async def list_levers(
        self, request: pb.ListLeversRequest, identity: Identity
    ) -> pb.ListLeversResponse:
        """Lists levers.

        Raises:
            NotFound: the caller may see no such route.
        """
        policies = self._in_force.now
        if request.route:
            routes = [self._route(request.route, identity)]
        else:
            routes = [route for route in policies.routes.values() if _sees(identity, route)]
        seen = self._levers.listed(routes)
        return pb.ListLeversResponse(
            levers=[
                _message(lever)
                for lever in sorted(seen, key=lambda lever: (lever.route.name, lever.name))
            ],
            policy_version=policies.version,
            totals=[
                pb.RouteWatch(
                    route=total.route.name,
                    watch=_watch(total.guard, total.watch) if total.known else None,
                )
                for total in sorted(self._levers.totals(routes), key=lambda one: one.route.name)
            ],
        )

    async def set_lever(
        self, request: pb.SetLeverRequest, identity: Identity
    ) -> pb.SetLeverResponse:
        """Halts or releases a lever.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: with all violations.
            NotFound: there is no such route, or it has no such lever.
            Unavailable: a release cannot be written to the shared state. Trying again is safe.
        """
        identity.require(Role.OPERATOR)
        _check(request)
        route = self._route(request.route, identity)
        if request.lever not in levers_of(route):
            message = f"{route.name} has no lever named {request.lever[:80]!r}"
            raise NotFound(message, reason="LEVER_UNKNOWN")
        if request.state == pb.LEVER_STATE_ON:
            seen = await self._levers.release(
                route, request.lever, author=request.author, reason=request.reason
            )
        else:
            seen = await self._levers.halt(
                route,
                request.lever,
                author=request.author,
                reason=request.reason,
                seconds=seconds_of(request.expires_after)
                if request.HasField("expires_after")
                else None,
            )
        log.warning(
            "a lever was set",
            route=route.name,
            lever=request.lever,
            halted=seen.standing.halted,
            tenant=identity.tenant,
            key=identity.key_id,
            author=request.author,  # which is what the caller says, and nothing more
            reason=request.reason,
            unsaved=seen.unsaved,
        )
        return pb.SetLeverResponse(lever=_message(seen))

    def _route(self, name: str, identity: Identity) -> Route:
        route = self._in_force.now.routes.get(name)
        if route is None or not _sees(identity, route):  # others' routes are nobody's business
            raise NotFound(f"no route named {name[:80]!r}", reason="ROUTE_UNKNOWN")
        return route


def _sees(identity: Identity, route: Route) -> bool:
    return identity.may_operate or route.admits(identity.tenant)


def _check(request: pb.SetLeverRequest) -> None:
    wrong = [
        Violation(name, "is required") for name in ("route", "lever") if not getattr(request, name)
    ]
    if request.state not in (pb.LEVER_STATE_ON, pb.LEVER_STATE_HALTED):
        wrong.append(Violation("state", "must be LEVER_STATE_ON or LEVER_STATE_HALTED"))
    wrong += text_violations("author", request.author, MAX_AUTHOR)
    wrong += text_violations("reason", request.reason, MAX_REASON)
    if request.author in RESERVED_AUTHORS:
        wrong.append(Violation("author", f"must be a person's name, got {request.author!r}"))
    if request.HasField("expires_after"):
        seconds = seconds_of(request.expires_after)
        if request.state == pb.LEVER_STATE_ON:
            wrong.append(Violation("expires_after", "only a halt can expire"))
        elif not 0.0 < seconds <= MAX_HALT_SECONDS:
            rule = f"must be above 0 and at most 365 days, got {seconds:g} s"
            wrong.append(Violation("expires_after", rule))
    if wrong:
        raise BadRequest.of(*wrong)


def _message(seen: SeenLever) -> pb.Lever:
    standing = seen.standing
    state = pb.LEVER_STATE_HALTED if standing.halted else pb.LEVER_STATE_ON
    message = pb.Lever(
        route=seen.route.name,
        name=seen.name,
        state=state if seen.is_told else pb.LEVER_STATE_UNKNOWN,
        author=standing.author,
        reason=standing.reason,
        unsaved=seen.unsaved,
    )
    if standing.since is not None:
        set_time(message.since, standing.since)
    if standing.expires is not None:
        set_time(message.expires, standing.expires)
    if seen.guard is not None and seen.known:
        message.watch.CopyFrom(_watch(seen.guard, seen.watch))
    return message


def _watch(guard: Guard, state: GuardState) -> pb.LeverWatch:
    return pb.LeverWatch(
        samples=state.samples,
        mean_loss=state.mean_loss,
        allowed_loss=guard.allowed,
        evidence=state.evidence / guard.run_length,
        run_length=guard.run_length,
        level=guard.level,
        worse_share=state.worse_share,
        allowed_worse_share=guard.allowed_worse,
    )
