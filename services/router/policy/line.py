"""Who waits, who is next and who is turned away: a bounded line in which tenants take turns."""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """Who waits for the answer; a tenant's higher one goes first. Numbers equal the proto's."""

    BACKGROUND = 1
    BATCH = 2
    INTERACTIVE = 3
    CRITICAL = 4


@dataclass(eq=False, slots=True)
class Ticket(Generic[T]):
    """A place in the line: `holder` is who waits, `left` marks it as void."""

    number: int
    priority: Priority
    tenant: str
    holder: T
    left: bool = False


@dataclass(eq=False, slots=True)
class _Lane(Generic[T]):
    """What waits for one tenant, in the background or not; `turn` grows with each turn it had."""

    turn: int
    classes: dict[Priority, OrderedDict[int, Ticket[T]]] = field(default_factory=dict)
    waiting: int = 0

    def add(self, ticket: Ticket[T]) -> None:
        self.classes.setdefault(ticket.priority, OrderedDict())[ticket.number] = ticket
        self.waiting += 1

    def remove(self, ticket: Ticket[T]) -> None:
        tickets = self.classes[ticket.priority]
        del tickets[ticket.number]
        if not tickets:
            del self.classes[ticket.priority]
        self.waiting -= 1

    def first(self) -> Ticket[T]:
        """The oldest of the highest class."""
        return next(iter(self.classes[max(self.classes)].values()))

    def tickets(self) -> Iterator[Ticket[T]]:
        """All of them."""
        return (ticket for tickets in self.classes.values() for ticket in tickets.values())

    def last(self) -> Ticket[T]:
        """The youngest of the lowest class."""
        return next(reversed(self.classes[min(self.classes)].values()))


_Key = tuple[bool, str]
"""Of a lane: whether it is one of the background, and its tenant."""


class WaitingLine(Generic[T]):
    """A bounded line.

    The next one is of the tenant that holds least, of equals the one whose last turn is longest
    ago; within a tenant a higher priority goes first, then who came first. What is in the
    background waits until nothing else does. So one tenant's crowd holds up that tenant alone,
    however important it says it is, and who is alone has everything.

    When the line is full, a newcomer takes the place of something in the background, else of the
    tenant that has most in it, if that stays no worse off than the newcomer's, else of something
    less important of its own; otherwise it is turned away.

    Attributes:
        size: most that wait; may change, and who waits already stays.
        most: of them for one tenant, with the same meaning.
    """

    def __init__(self, size: int, most: int | None = None) -> None:
        """`most` is `size` where it is not given."""
        self.size = size
        self.most = size if most is None else most
        self._lanes: dict[_Key, _Lane[T]] = {}
        self._waiting = 0
        self._turns = 0
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self._waiting

    def waiting(self, tenant: str) -> int:
        """How many wait for a tenant."""
        lanes = (self._lanes.get((background, tenant)) for background in (False, True))
        return sum(lane.waiting for lane in lanes if lane is not None)

    def join(
        self, holder: T, priority: Priority, tenant: str = ""
    ) -> tuple[Ticket[T] | None, Ticket[T] | None]:
        """Queues `holder`. Returns its ticket and the ticket that lost its place for it, if any.

        The first is None when the holder was turned away.
        """
        evicted: Ticket[T] | None = None
        if self.waiting(tenant) >= self.most:
            evicted = self._less_important(priority, tenant)
        elif self._waiting >= self.size:
            evicted = self._of_the_crowd(priority, tenant)
            evicted = evicted or self._less_important(priority, tenant)
        else:
            return self._add(holder, priority, tenant), None
        if evicted is None:
            return None, None
        self.leave(evicted)
        return self._add(holder, priority, tenant), evicted

    def leave(self, ticket: Ticket[T]) -> None:
        """Voids a ticket: its holder gave up or was turned away."""
        if ticket.left:
            return
        ticket.left = True
        key = _key(ticket.priority, ticket.tenant)
        lane = self._lanes[key]
        lane.remove(ticket)
        self._waiting -= 1
        if not lane.waiting:
            del self._lanes[key]

    def serve(self, ticket: Ticket[T]) -> None:
        """Voids a ticket whose holder's turn has come."""
        self._turns += 1
        self._lanes[_key(ticket.priority, ticket.tenant)].turn = self._turns
        self.leave(ticket)

    def first(
        self, held: Mapping[str, int] | None = None, most: int | None = None
    ) -> Ticket[T] | None:
        """The next to be served, left in the line.

        Args:
            held: by tenant, how much of what is waited for it has; nothing where it is not named.
            most: a tenant that has so much is passed over; None for no bound.

        Returns:
            None where nobody waits, or only tenants that are passed over.
        """
        held = held or {}
        best: Ticket[T] | None = None
        best_rank: tuple[bool, int, int, int] | None = None
        for (background, tenant), lane in self._lanes.items():
            has, ticket = held.get(tenant, 0), lane.first()
            rank = background, has, lane.turn, ticket.number
            if (most is None or has < most) and (best_rank is None or rank < best_rank):
                best, best_rank = ticket, rank
        return best

    def tickets(self) -> list[Ticket[T]]:
        """Everybody in the line, in no order."""
        return [ticket for lane in self._lanes.values() for ticket in lane.tickets()]

    def _add(self, holder: T, priority: Priority, tenant: str) -> Ticket[T]:
        ticket = Ticket(next(self._numbers), priority, tenant, holder)
        # A tenant that comes anew has its turn after those who wait, so that none can come ahead
        # of them again and again.
        lane = self._lanes.setdefault(_key(priority, tenant), _Lane(self._turns))
        lane.add(ticket)
        self._waiting += 1
        return ticket

    def _of_the_crowd(self, priority: Priority, tenant: str) -> Ticket[T] | None:
        """Who gives way in a full line to somebody of another tenant; None if nobody has to."""
        background = priority is Priority.BACKGROUND
        if not background and (lane := self._longest(background=True)) is not None:
            return lane.last()
        lane = self._longest(background=background)
        own = self._lanes.get(_key(priority, tenant))
        waiting = own.waiting if own is not None else 0
        return lane.last() if lane is not None and waiting + 1 < lane.waiting else None

    def _less_important(self, priority: Priority, tenant: str) -> Ticket[T] | None:
        """Who gives way to somebody more important of the same tenant; None if nobody has to."""
        for background in (True, False):
            lane = self._lanes.get((background, tenant))
            if lane is not None and (last := lane.last()).priority < priority:
                return last
        return None

    def _longest(self, *, background: bool) -> _Lane[T] | None:
        lanes: Iterable[_Lane[T]] = (
            lane for (behind, _), lane in self._lanes.items() if behind is background
        )
        return max(lanes, key=lambda lane: lane.waiting, default=None)


def _key(priority: Priority, tenant: str) -> _Key:
    return priority is Priority.BACKGROUND, tenant
