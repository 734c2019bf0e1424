"""A request that keeps every rule."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.router.policy.difficulty import Signals
from services.router.policy.forms import Validator
from services.router.policy.line import Priority
from services.router.policy.prompts import Message
from services.router.policy.routes import Route
from services.router.ports import Asked
from services.router.routes.compiled import CompiledRoute


@dataclass(frozen=True, slots=True)
class Checked:
    """What is asked of which route, with every default filled in.

    Attributes:
        compiled: the route that is asked, of the version in force when it came; it keeps to that
            version to its end.
        asked: what is asked, whole.
        shorter: the conversation as models get it where the route trims prompts, else None.
        written: what the user wrote, without passages: what difficulty is predicted from.
        signals: what the caller knows.
        validators: what a lower tier's answer must pass, the wanted form first.
    """

    compiled: CompiledRoute
    asked: Asked
    shorter: tuple[Message, ...] | None
    written: str
    signals: Signals
    validators: tuple[Validator, ...]
    priority: Priority
    idempotency_key: str
    attributes: Mapping[str, str]
    read_cache: bool
    write_cache: bool

    @property
    def route(self) -> Route:
        """The route that is asked, as it was declared."""
        return self.compiled.route

    @property
    def policy_version(self) -> str:
        """Version of the policies that it travels by."""
        return self.compiled.policy_version
