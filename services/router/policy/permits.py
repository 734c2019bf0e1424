"""How many requests may be in the router at once, and how many of one tenant."""

from dataclasses import dataclass
from typing import NamedTuple

from services.router.policy.shares import most_of

SHARE = 0.5
"""Of all that may be in at once, for one tenant: what is running cannot be sent away again."""


class Reserved(NamedTuple):
    """What requests in the router, or ends of answers that nobody has read, take up."""

    requests: int = 0
    bytes: int = 0

    def plus(self, size: int) -> "Reserved":
        """With one more of so many bytes."""
        return Reserved(self.requests + 1, self.bytes + size)

    def minus(self, size: int) -> "Reserved":
        """With one less of so many bytes."""
        return Reserved(self.requests - 1, self.bytes - size)


@dataclass(frozen=True)
class Crowd:
    """How much may be in at once.

    Attributes:
        requests: how many.
        bytes: of them as they came, and of what the members of their lists take beside; they take
            three to five times as much while they are in.
        unread: ended calls of one tenant whose end it has not read. They have a bound of their own,
            for each tenant alone: gRPC lets go of them when the caller does, so they must not take
            others' room.
        unread_bytes: of those ends.
    """

    requests: int = 8_192
    bytes: int = 256 * 1024 * 1024
    unread: int = 2_048
    unread_bytes: int = 16 * 1024 * 1024

    def has_room(self, everybody: Reserved, tenant: Reserved) -> bool:
        """Whether one more may enter beside those of everybody and those of its tenant.

        Its own bytes do not count yet: the largest request may always enter where nobody is.
        """
        return (
            everybody.requests < self.requests
            and everybody.bytes < self.bytes
            and tenant.requests < most_of(self.requests, SHARE)
            and tenant.bytes < most_of(self.bytes, SHARE)
        )

    def is_read(self, unread: Reserved) -> bool:
        """Whether a tenant reads enough of its answers' ends to be given more."""
        return unread.requests < self.unread and unread.bytes < self.unread_bytes
