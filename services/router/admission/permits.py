"""Permits: leave to be in the router with a request, given for a part that one tenant may have.

A permit is settled when the work is done. What is left of the call then, its end, counts for its
tenant alone until gRPC lets go of it.
"""

from typing import Self

from services.common.errors import Overloaded
from services.router.policy.permits import Crowd, Reserved


class Permit:
    """Leave to be in; use it in a block, whose end settles it."""

    def __init__(self, permits: "Permits", tenant: str, size: int) -> None:
        self._permits = permits
        self._tenant = tenant
        self._size = size
        self._open = True
        self._left = False
        self._unread: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.settle()

    def settle(self, unread_bytes: int = 0) -> None:
        """Gives back what it holds; once, and nothing the second time.

        Args:
            unread_bytes: of the end that the caller is still to read.
        """
        if not self._open:
            return
        self._open = False
        self._permits.settled(self._tenant, self._size)
        if not self._left:
            self._unread = unread_bytes
            self._permits.ended(self._tenant, unread_bytes)

    def leave(self) -> None:
        """The call is over: its end was read, or the caller is gone. Once."""
        if self._left:
            return
        self._left = True
        if self._unread is not None:
            self._permits.read(self._tenant, self._unread)


class Permits:
    """Who is in the router; state of the process."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._everybody = Reserved()
        self._tenants: dict[str, Reserved] = {}
        self._unread: dict[str, Reserved] = {}

    def enter(self, tenant: str, size: int) -> Permit:
        """Lets a request of so many bytes in.

        Raises:
            Overloaded: too much of the tenant's, or of everybody's, is in already; or the tenant
                leaves too much unread.
        """
        held = self._tenants.get(tenant, Reserved())
        if not self._crowd.has_room(self._everybody, held):
            raise Overloaded(
                "too many requests of this tenant, or of all, are in already",
                reason="TOO_MANY_REQUESTS",
                retry_after_seconds=1.0,
            )
        if not self._crowd.is_read(self._unread.get(tenant, Reserved())):
            raise Overloaded(
                "too many answers of this tenant wait to be read",
                reason="TOO_MANY_UNREAD",
                retry_after_seconds=1.0,
            )
        self._everybody, self._tenants[tenant] = self._everybody.plus(size), held.plus(size)
        return Permit(self, tenant, size)

    def settled(self, tenant: str, size: int) -> None:
        """A permit has been settled."""
        self._everybody = self._everybody.minus(size)
        _take(self._tenants, tenant, size)

    def ended(self, tenant: str, size: int) -> None:
        """A call's work is done; so many bytes of it wait to be read."""
        self._unread[tenant] = self._unread.get(tenant, Reserved()).plus(size)

    def read(self, tenant: str, size: int) -> None:
        """They wait no more."""
        _take(self._unread, tenant, size)


def _take(held: dict[str, Reserved], tenant: str, size: int) -> None:
    """Takes one of so many bytes away."""
    left = held[tenant].minus(size)
    if left.requests:
        held[tenant] = left
    else:
        del held[tenant]
