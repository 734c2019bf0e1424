"""How much is under way to another service, and how much of it for one tenant."""

from services.router.policy.shares import most_of

SHARE = 0.5
"""Of all that may be under way, for one tenant: what is under way cannot be taken back."""


class UnderWay:
    """Counts what is under way; no tenant's burst takes all the room."""

    def __init__(self, most: int) -> None:
        """`most` may be under way at once."""
        self._most = most
        self._all = 0
        self._tenants: dict[str, int] = {}

    def has_room(self, tenant: str) -> bool:
        """Whether one more may begin."""
        own = self._tenants.get(tenant, 0)
        return self._all < self._most and own < most_of(self._most, SHARE)

    def begun(self, tenant: str) -> None:
        """One more is under way."""
        self._all += 1
        self._tenants[tenant] = self._tenants.get(tenant, 0) + 1

    def over(self, tenant: str) -> None:
        """One is under way no more."""
        self._all -= 1
        left = self._tenants[tenant] - 1
        if left:
            self._tenants[tenant] = left
        else:
            del self._tenants[tenant]

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._all = 0
        self._tenants.clear()
