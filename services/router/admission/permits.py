"""Permits: leave to be in the router with a request, given for a part that one tenant may have."""

from services.common.errors import Overloaded
from services.router.policy.permits import Crowd, Reserved


class Permit:
    """Leave to be in; use it in a block, whose end settles it."""

    def __init__(self, permits: "Permits", tenant: str, size: int) -> None:
        self._permits = permits
        self._tenant = tenant
        self._size = size
        self._open = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.settle()

    def settle(self) -> None:
        """Gives back what it holds; once, and nothing the second time."""
        if self._open:
            self._open = False
            self._permits.settled(self._tenant, self._size)


class Permits:
    """Who is in the router; state of the process."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._everybody = Reserved()
        self._tenants: dict[str, Reserved] = {}

    def enter(self, tenant: str, size: int) -> Permit:
        """Lets a request of so many bytes in.

        Raises:
            Overloaded: too much of the tenant's, or of everybody's, is in already.
        """
        held = self._tenants.get(tenant, Reserved())
        if not self._crowd.has_room(self._everybody, held):
            raise Overloaded(
                "too many requests of this tenant, or of all, are in already",
                reason="TOO_MANY_REQUESTS",
                retry_after_seconds=1.0,
            )
        self._everybody, self._tenants[tenant] = self._everybody.plus(size), held.plus(size)
        return Permit(self, tenant, size)

    def settled(self, tenant: str, size: int) -> None:
        """A permit has been settled."""
        self._everybody = self._everybody.minus(size)
        held = self._tenants[tenant].minus(size)
        if held.requests:
            self._tenants[tenant] = held
        else:
            del self._tenants[tenant]
