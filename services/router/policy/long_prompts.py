"""How much of long prompts may wait to be tokenised, and how much of it for one tenant."""

from dataclasses import dataclass

from services.router.policy.shares import most_of

SHORT_BYTES = 8_000
"""Up to here tokenising takes a millisecond at most, and a thread would take longer to ask."""

MESSAGE_BYTES = 256
"""Bytes of text that take as long as what a message needs beside its text."""

SHARE = 0.25
"""Of what may wait, for one tenant."""


@dataclass(frozen=True)
class Room:
    """What may be tokenised at once, and wait meanwhile.

    Attributes:
        at_once: prompts, each in a thread of its own.
        waiting_bytes: of prompts that wait.
    """

    at_once: int = 2
    waiting_bytes: int = 32 * 1024 * 1024

    @property
    def at_once_for_one(self) -> int:
        """Prompts at once of one tenant, even when nobody else asks: another's may come."""
        return most_of(self.at_once, 0.5)

    def has_room(self, waiting: int, waiting_for_tenant: int) -> bool:
        """Whether one more prompt may wait beside so many bytes, whatever its size."""
        most_for_tenant = most_of(self.waiting_bytes, SHARE)
        return waiting < self.waiting_bytes and waiting_for_tenant < most_for_tenant
