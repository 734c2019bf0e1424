"""Who ran beside whom on a replica: how many may be to blame where it is lost.

Only what has a form makes an engine do work of its caller's own making, so only such a request is
a suspect; one without is only where nothing else ran. Suspects are counted by tenants, so that
nobody grows less suspicious by sending more.
"""

from collections import deque
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from services.router.fleet.group import Replica
from services.router.request.attempt import Attempt
from services.router.request.context import RequestState

MOST_LEFT = 64
"""Attempts of one replica remembered that ended without its last word."""


@dataclass(frozen=True, slots=True)
class _Guest:
    """One attempt: whose it is, whether it has a form, and when it ended (infinite: it runs)."""

    tenant: str
    guided: bool
    ended: float = float("inf")


@dataclass(slots=True)
class _Guests:
    """Attempts on one replica: those that run, and those that ended without its last word."""

    running: dict[Attempt, _Guest] = field(default_factory=dict)
    left: deque[_Guest] = field(default_factory=lambda: deque(maxlen=MOST_LEFT))


class Company:
    """What runs on each replica; state of the process."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._replicas: WeakKeyDictionary[Replica, _Guests] = WeakKeyDictionary()

    def joined(self, state: RequestState, attempt: Attempt) -> None:
        """An attempt has begun."""
        replica, context = attempt.place.replica, state.context
        guests = self._replicas.get(replica)
        if guests is None:
            guests = self._replicas[replica] = _Guests()
        guests.running[attempt] = _Guest(context.tenant, context.checked.asked.guide is not None)

    def left(self, attempt: Attempt, now: float) -> None:
        """Nothing of an attempt runs any more. What the replica ended well is above suspicion."""
        guests = self._replicas.get(attempt.place.replica)
        guest = guests.running.pop(attempt, None) if guests is not None else None
        if guests is None or guest is None or (attempt.call is not None and attempt.call.final):
            return
        guests.left.append(_Guest(guest.tenant, guest.guided, now))

    def suspicion(self, state: RequestState, attempt: Attempt) -> float:
        """How likely the replica was lost over this attempt, in [0, 1]; 0 is not at all."""
        guests = self._replicas.get(attempt.place.replica, _Guests())
        beside = [guest for one, guest in guests.running.items() if one is not attempt]
        beside += [guest for guest in guests.left if guest.ended >= attempt.began]
        own = guests.running.get(attempt) is None  # it is among those that left
        context = state.context
        if context.checked.asked.guide is None:
            return 1.0 if len(beside) <= own else 0.0
        return 1.0 / len({context.tenant, *(guest.tenant for guest in beside if guest.guided)})
