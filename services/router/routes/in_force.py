"""The policies in force, swapped as a whole."""

from services.router.policy.routes import Policies
from services.router.routes.compiled import Compiled


class InForce:
    """Holds the version that the next request travels by; one already under way keeps its own.

    Attributes:
        compiled: the version in force.
    """

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled

    @property
    def now(self) -> Policies:
        """The policies in force, as they were declared."""
        return self.compiled.policies

    def adopt(self, compiled: Compiled) -> None:
        """Puts a version in force. Whoever serves it must know it before."""
        self.compiled = compiled
