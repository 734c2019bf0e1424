"""What a key may ask for."""

import pytest

from services.common.credentials import Identity, Role
from services.common.errors import Forbidden
from services.router.admission.rights import require_priority
from services.router.policy.line import Priority


@pytest.mark.parametrize("identity", [Identity("acme"), Identity("acme", Role.OPERATOR)])
def test_critical_is_refused_to_a_key_that_may_not_say_so(identity: Identity) -> None:
    for priority in (Priority.BACKGROUND, Priority.BATCH, Priority.INTERACTIVE):
        require_priority(identity, priority)
    with pytest.raises(Forbidden) as caught:
        require_priority(identity, Priority.CRITICAL)
    assert caught.value.reason == "CRITICAL_FORBIDDEN"


@pytest.mark.parametrize(
    "identity", [Identity("acme", critical=True), Identity("acme", Role.SERVICE)]
)
def test_critical_is_for_keys_and_services_that_may_say_so(identity: Identity) -> None:
    require_priority(identity, Priority.CRITICAL)
