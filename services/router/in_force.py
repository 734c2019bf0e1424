"""The policies in force, swapped as a whole."""

from services.router.policy.routes import Policies


class InForce:
    """Holds the policies that the next request travels by; one already under way keeps its own."""

    def __init__(self, policies: Policies) -> None:
        self.now = policies
