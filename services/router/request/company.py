"""Who ran beside whom on a replica: how many may be to blame where it is lost.

Only what has a form makes an engine do work of its caller's own making, so only such a request is
a suspect; one without is only where nothing else ran. Suspects are counted by tenants, so that
nobody grows less suspicious by sending more.
"""

from collections import deque
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from services.router.fleet.replica import Replica
from services.router.policy.poison import MARK_SECONDS
from services.router.request.attempt import Attempt
from services.router.request.context import RequestState

MOST_LEFT = 256
"""Tenants of one replica remembered whose attempts ended without its last word, those with a form
and those without apart."""


@dataclass(frozen=True, slots=True)
class _Guest:
    """Whose attempt it is, and whether it has a form."""

    tenant: str
    guided: bool


@dataclass(slots=True)
class _Guests:
    """Attempts on one replica: those that run, and when others ended without its last word.

    Of each tenant the last two: so that nobody pushes out what somebody did, itself included.
    `spoke` is when the replica said something last to those that have ended.
    """

    running: dict[Attempt, _Guest] = field(default_factory=dict)
    left: dict[_Guest, deque[float]] = field(default_factory=dict)
    spoke: float = 0.0

    def silent_since(self) -> float:
        """When the replica said something last to anybody."""
        return max(self.spoke, *(one.heard_at or 0.0 for one in self.running), 0.0)

    def note_left(self, guest: _Guest, now: float) -> None:
        """One has ended."""
        ended = self.left.pop(guest, None) or deque(maxlen=2)
        ended.append(now)
        self.left[guest] = ended  # the last that was changed stands last
        if len(self.left) > MOST_LEFT:
            del self.left[next(iter(self.left))]

    def left_since(self, began: float) -> list[_Guest]:
        """Those that have ended since then."""
        return [guest for guest, ended in self.left.items() for at in ended if at >= began]


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
        if guests is not None:
            guests.spoke = max(guests.spoke, attempt.heard_at or 0.0)
        if guests is None or guest is None or (attempt.call is not None and attempt.call.final):
            return
        guests.note_left(guest, now)

    def suspects(self, state: RequestState, attempt: Attempt) -> frozenset[str]:
        """The tenants over whose requests the replica may be lost; none: not over this attempt.

        What was left there with a form may be why it hangs until it says something again, also
        where the attempt came later.
        """
        guests = self._replicas.get(attempt.place.replica, _Guests())
        began, tenant = attempt.began, state.context.tenant
        beside = [guest for one, guest in guests.running.items() if one is not attempt]
        beside += guests.left_since(began)
        silent = max(guests.silent_since(), began - MARK_SECONDS)
        guided = [guest for guest in [*beside, *guests.left_since(silent)] if guest.guided]
        if state.context.checked.asked.guide is not None:
            return frozenset({tenant, *(guest.tenant for guest in guided)})
        own = guests.running.get(attempt) is None  # it is among those that left
        return frozenset() if guided or len(beside) > own else frozenset({tenant})
