"""Who waits and who is turned away: a bounded line, most important first."""

import heapq
import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """Who waits for the answer; a higher one goes first. Numbers equal the proto's."""

    BACKGROUND = 1
    BATCH = 2
    INTERACTIVE = 3
    CRITICAL = 4


@dataclass(order=True)
class Ticket(Generic[T]):
    """A place in the line: `order` sorts it, `holder` is who waits, `left` marks it as void."""

    order: tuple[int, int]
    priority: Priority = field(compare=False)
    holder: T = field(compare=False)
    left: bool = field(default=False, compare=False)


class WaitingLine(Generic[T]):
    """A bounded line: higher priority first, then first come first served.

    When it is full, a newcomer takes the place of the youngest ticket of the lowest class, if that
    class is below its own; otherwise it is turned away.

    Attributes:
        size: most that wait; may change, and who waits already stays.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[Ticket[T]] = []
        self._waiting = 0
        self._arrivals = itertools.count()

    def __len__(self) -> int:
        return self._waiting

    def join(self, holder: T, priority: Priority) -> tuple[Ticket[T] | None, Ticket[T] | None]:
        """Queues `holder`. Returns its ticket and the ticket that lost its place for it, if any.

        The first is None when the holder was turned away.
        """
        evicted: Ticket[T] | None = None
        if self._waiting >= self.size:
            evicted = max((t for t in self._heap if not t.left), default=None)
            if evicted is None or evicted.priority >= priority:
                return None, None
            self.leave(evicted)
        ticket = Ticket((-priority, next(self._arrivals)), priority, holder)
        heapq.heappush(self._heap, ticket)
        self._waiting += 1
        return ticket, evicted

    def leave(self, ticket: Ticket[T]) -> None:
        """Voids a ticket: its holder gave up, was turned away or was served."""
        if not ticket.left:
            ticket.left = True
            self._waiting -= 1
            if len(self._heap) > 2 * self.size + 16:  # void tickets are dropped in bulk
                self._heap = [ticket for ticket in self._heap if not ticket.left]
                heapq.heapify(self._heap)

    def waiting(self) -> list[Ticket[T]]:
        """Everybody in the line, in no order."""
        return [ticket for ticket in self._heap if not ticket.left]

    def first(self) -> Ticket[T] | None:
        """The next to be served, left in the line."""
        while self._heap and self._heap[0].left:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
