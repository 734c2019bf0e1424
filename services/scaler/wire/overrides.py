"""SetOverride, ClearOverride and ListOverrides: operators set them, any caller may see them."""

from collections.abc import Callable, Mapping

import structlog

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.credentials import Identity, Role
from services.common.durations import seconds_of, set_time, wall_clock
from services.common.errors import BadRequest, NotFound, NotNow, Overloaded, Violation
from services.common.notes import MAX_AUTHOR, MAX_REASON, text_violations
from services.scaler.history.overrides import MAX_SIZE, Held, OverrideBook
from services.scaler.policy.sizing.override import OverrideKind
from services.scaler.pools.pool import Pool

log = structlog.get_logger()

MAX_SECONDS = 30 * 86_400

_KINDS = {
    pb.OVERRIDE_KIND_PAUSE: OverrideKind.PAUSE,
    pb.OVERRIDE_KIND_PIN: OverrideKind.PIN,
    pb.OVERRIDE_KIND_NO_SCALE_DOWN: OverrideKind.NO_SCALE_DOWN,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


class OverrideCalls:
    """The calls about overrides; see scaler.proto."""

    def __init__(
        self,
        book: OverrideBook,
        pools: Callable[[], Mapping[str, Pool]],
        *,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """`pools` names those that there are; `wall` gives seconds since 1970."""
        self._book = book
        self._pools = pools
        self._wall = wall

    async def set_override(
        self, request: pb.SetOverrideRequest, identity: Identity
    ) -> pb.SetOverrideResponse:
        """Sets an override.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: with all violations.
            NotFound: there is no such pool.
            NotNow: nothing would serve the pool's tier any more, and that is not said to be meant.
            Overloaded: there are too many.
        """
        identity.require(Role.OPERATOR)
        _check(request)
        self._require(request.pool)
        pinned = request.kind == pb.OVERRIDE_KIND_PIN
        if pinned and not request.size and not request.may_stop_tier:
            self._keep_serving(request.pool)
        now = self._wall()
        held = Held(
            pool=request.pool,
            kind=_KINDS[request.kind],
            size=request.size,
            author=request.author,
            reason=request.reason,
            since=now,
            expires=now + seconds_of(request.expires_after),
        )
        replaced = self._book.held(request.pool, now)
        try:
            saved = await self._book.put(held)
        except OverflowError as error:
            raise Overloaded(str(error), reason="TOO_MANY_OVERRIDES") from error
        log.warning(
            "an override was set",
            pool=held.pool,
            override=str(held.kind),
            size=held.size,
            expires=held.expires,
            tenant=identity.tenant,
            key=identity.key_id,
            author=held.author,  # which is what the caller says, and nothing more
            reason=held.reason,
            unsaved=not saved,
        )
        response = pb.SetOverrideResponse(override=_message(held, operator=True, unsaved=not saved))
        if replaced is not None:
            response.replaced.CopyFrom(_message(replaced, operator=True))
        most = _most(self._pools().get(held.pool))
        if pinned and most is not None and held.size > most[0]:
            response.most, response.most_by = most
        return response

    async def clear_override(
        self, request: pb.ClearOverrideRequest, identity: Identity
    ) -> pb.ClearOverrideResponse:
        """Ends an override; of a pool that is no longer there too.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: with all violations.
            NotFound: there is no such pool, and no override of that name.
        """
        identity.require(Role.OPERATOR)
        wrong = [*_pool_violations(request.pool)]
        wrong += text_violations("author", request.author, MAX_AUTHOR)
        if wrong:
            raise BadRequest.of(*wrong)
        if self._book.held(request.pool, self._wall()) is None:
            self._require(request.pool)
        ended, saved = await self._book.end(request.pool)
        if ended is None:
            return pb.ClearOverrideResponse()
        log.warning(
            "an override was ended",
            pool=ended.pool,
            override=str(ended.kind),
            tenant=identity.tenant,
            key=identity.key_id,
            author=request.author,
            unsaved=not saved,
        )
        return pb.ClearOverrideResponse(override=_message(ended, operator=True, unsaved=not saved))

    def list_overrides(self, identity: Identity) -> pb.ListOverridesResponse:
        """Lists those that hold; who set them is for operators."""
        operator = identity.may_operate
        return pb.ListOverridesResponse(
            overrides=[_message(one, operator=operator) for one in self._book.listed()]
        )

    def _require(self, pool: str) -> None:
        if pool not in self._pools():
            raise NotFound(f"there is no pool named {pool[:80]}", reason="POOL_UNKNOWN")

    def _keep_serving(self, name: str) -> None:
        """Refuses to leave a tier without any pool.

        Raises:
            NotNow: no other pool serves it.
        """
        pools = self._pools()
        tier = pools[name].tier
        if any(pool.tier == tier for other, pool in pools.items() if other != name):
            return
        message = f"{name} is the only pool of tier {tier}: at 0 all requests of {tier} would fail"
        raise NotNow(message, reason="PIN_STOPS_TIER")


def _most(pool: Pool | None) -> tuple[int, str] | None:
    """Most replicas that a pin brings, and what holds them down to that; None: nothing known."""
    if pool is None:
        return None
    bounds = [(len(pool.slots), "room")] if pool.slots else []
    if pool.scale is not None:
        scheduled = (one.max for one in pool.scale.schedule if one.max is not None)
        bounds.append((max(pool.scale.max, *scheduled, 0), "max"))
    return min(bounds, default=None)


def _check(request: pb.SetOverrideRequest) -> None:
    wrong = [*_pool_violations(request.pool)]
    if request.kind not in _KINDS:
        wrong.append(Violation("kind", "must be PAUSE, PIN or NO_SCALE_DOWN"))
    pinned = request.kind == pb.OVERRIDE_KIND_PIN
    if pinned and not (request.HasField("size") and 0 <= request.size <= MAX_SIZE):
        wrong.append(Violation("size", f"of a pin must be 0 to {MAX_SIZE}"))
    elif not pinned and request.HasField("size"):
        wrong.append(Violation("size", "only a pin has one"))
    seconds = seconds_of(request.expires_after)
    if not 0.0 < seconds <= MAX_SECONDS:
        rule = f"must be above 0 and at most 30 days, got {seconds:g} s"
        wrong.append(Violation("expires_after", rule))
    wrong += text_violations("author", request.author, MAX_AUTHOR)
    wrong += text_violations("reason", request.reason, MAX_REASON)
    if wrong:
        raise BadRequest.of(*wrong)


def _pool_violations(pool: str) -> list[Violation]:
    return [] if pool else [Violation("pool", "is required")]


def _message(held: Held, *, operator: bool, unsaved: bool = False) -> pb.Override:
    message = pb.Override(
        pool=held.pool,
        kind=_NUMBERS[held.kind],
        size=held.size,
        author=held.author if operator else "",
        reason=held.reason if operator else "",
        unsaved=unsaved,
    )
    set_time(message.since, held.since)
    set_time(message.expires, held.expires)
    return message
