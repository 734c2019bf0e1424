"""A place: room for one attempt on one replica, and the engine call that uses it.

It is taken from `fleet`, owned by one attempt and given back once: when its block is left, or,
where the replica still works for the attempt then, as soon as it does not any more. Where nobody
reads what the replica has made, `release` gives it back before.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Self

import structlog

from services.common.errors import ServiceError
from services.router.fleet.replica import Replica
from services.router.policy.routes import Cancel, Tier
from services.router.ports import Engine, EngineCall, EngineRequest, ReplicaFailed, brief

log = structlog.get_logger()

Spawn = Callable[[Coroutine[Any, Any, None]], Any]


class Place:
    """Use it in a block; who goes on with it elsewhere uses what `moved` returns.

    Attributes:
        replica: where it is.
        tier: that the replica serves.
        call: what runs there; None before `start`.
    """

    def __init__(
        self,
        replica: Replica,
        tier: Tier,
        give_back: Callable[[Replica], None],
        spawn: Spawn,
    ) -> None:
        """`give_back` takes the room back; `spawn` owns what must still be ended."""
        self.replica = replica
        self.tier = tier
        self.call: EngineCall | None = None
        self._give_back = give_back
        self._spawn = spawn
        self._ended: Callable[[], None] = lambda: None
        self._patience: Callable[[], float] = lambda: 0.0
        self._owned = True

    def start(
        self,
        engine: Engine,
        request: EngineRequest,
        *,
        patience: Callable[[], float],
        ended: Callable[[], None],
    ) -> EngineCall:
        """Starts the attempt.

        Args:
            engine: that speaks to the replica.
            request: what it is asked for.
            patience: how long the replica may stay silent, in seconds.
            ended: called once nothing of the attempt runs on the replica any more.
        """
        self._patience, self._ended = patience, ended
        self.call = engine.start(self.replica.address, request)
        self.replica.calls.add(self.call)
        return self.call

    def moved(self) -> "Place":
        """The same place in other hands: leaving the block of this one does nothing any more."""
        other = Place(self.replica, self.tier, self._give_back, self._spawn)
        other.call, other._ended, other._patience = self.call, self._ended, self._patience
        self._owned, other._owned = False, self._owned
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.give_back(error)

    def release(self) -> None:
        """Gives the room back if the replica is done, though what it made may not be read yet."""
        if self.call is not None and self.call.final:
            self.give_back()

    def give_back(self, error: object = None) -> None:
        """Gives the room back, once; `error` is what ended the attempt, if something did."""
        if not self._owned:
            return
        self._owned = False
        call = self.call
        if call is None:
            self._leave()
        elif call.final:
            call.finish()
            self._leave()
        elif isinstance(error, (ReplicaFailed, ServiceError)):  # it ended there, or never began
            call.cancel()
            self._leave()
        else:
            self._spawn(self._end(call))

    async def _end(self, call: EngineCall) -> None:
        """Ends what still runs, as the tier's engine must be treated."""
        try:
            if self.tier.cancel is Cancel.ABORT:
                await call.stop()
                return
            while not call.final:
                await call.read(self._patience())
            call.finish()
        except (ReplicaFailed, ServiceError) as error:
            call.cancel()
            log.info("a run that had to drain failed", replica=self.replica.id, why=brief(error))
        except BaseException:
            call.cancel()
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        if self.call is not None:
            self.replica.calls.discard(self.call)
        self._give_back(self.replica)
        self._ended()
