"""The leases that this router holds, and those it owes to a cache that has broken off.

A cache gives back the leases of a stream that ends, unless it was killed: then they stay in its
store until they end by themselves, and whoever asks the same question waits that long. So what is
done with while the cache is away is given back when it has come again.
"""

MAX_OWED = 10_000


class Leases:
    """Leases by what they are called."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._lost: set[str] = set()  # their stream broke and they are still worked for
        self._owed: dict[str, tuple[str, str]] = {}  # tenant and route

    def granted(self, lease: str) -> None:
        """The stream that is up has granted it."""
        self._held.add(lease)

    def end(self, lease: str) -> bool:
        """Its work is done; whether the stream that is up still knows it."""
        known = lease in self._held
        self._held.discard(lease)
        self._lost.discard(lease)
        return known

    def owe(self, lease: str, tenant: str, route: str) -> None:
        """Its work is done while the cache is away; it is one of a stream that broke or none."""
        if lease in self._lost and len(self._owed) < MAX_OWED:
            self._owed[lease] = tenant, route
        self._lost.discard(lease)

    def break_off(self) -> None:
        """The stream is over. What was lost with an earlier one has ended by now."""
        self._lost, self._held = self._held, set()

    def take_owed(self) -> list[tuple[str, str, str]]:
        """Tenant, route and lease of each that is owed; none is afterwards."""
        owed, self._owed = self._owed, {}
        return [(tenant, route, lease) for lease, (tenant, route) in owed.items()]
