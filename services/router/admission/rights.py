"""What a key may ask for, beyond the route it names."""

from services.common.credentials import Identity
from services.common.errors import Forbidden
from services.router.policy.line import Priority


def require_priority(identity: Identity, priority: Priority) -> None:
    """Lets no request through that is more important than its key may say.

    Raises:
        Forbidden: it says critical, and its key may not.
    """
    if priority is Priority.CRITICAL and not identity.may_be_critical:
        raise Forbidden("this key may not ask with priority critical", reason="CRITICAL_FORBIDDEN")
