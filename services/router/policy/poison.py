"""Requests over which replicas fall silent or die: noted, and after the second replica refused.

One short expression can hang an engine for everybody on it. A retry would carry it to the next
replica, and so would its caller, who asks again. So what a replica was lost over is noted under the
tenant and the request, whatever call it came in; once it has cost two replicas it is marked, and
while the mark lasts it is not run. Which of those who ran on a lost replica was to blame cannot be
known: so each loss counts by how few it can have been, and where the same other tenant was there
each time, none of them marks the request, however many there are. The mark is short, holds for
exactly this request of this tenant, and goes when it expires.

Bounded, for each tenant and in all: who fills it with requests pushes out its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

MARKED_AT = 2
"""Replicas lost over a request that mark it."""

SUSPECTED_AT = 1.5
"""Suspicion that marks it, all its losses together: who was the only suspect once and one of two
the next time is marked, who was one of two both times is not yet."""

MARK_SECONDS = 300.0
"""How long a loss is remembered and a mark lasts, from the last loss on."""

MOST_OF_A_TENANT = 64
MOST_TENANTS = 1024


@dataclass
class _Losses:
    """Replicas lost over one request, by suspicion, and until when that is remembered.

    `suspects` are the tenants who may be to blame for each of them.
    """

    suspects: frozenset[str]
    replicas: dict[str, float] = field(default_factory=dict)
    until: float = 0.0

    @property
    def marked(self) -> bool:
        """Whether they are enough, and nobody else can be to blame for all of them."""
        suspicion = sum(self.replicas.values())
        enough = len(self.replicas) >= MARKED_AT and suspicion >= SUSPECTED_AT
        return enough and len(self.suspects) == 1


class PoisonMarks:
    """What is noted; state of the process. Requests are named by their digests."""

    def __init__(self) -> None:
        """Starts with nothing noted."""
        self._tenants: dict[str, dict[bytes, _Losses]] = {}

    def note(
        self,
        tenant: str,
        digest: bytes,
        replica: str,
        now: float,
        others: frozenset[str] = frozenset(),
    ) -> bool:
        """Notes that a replica was lost over a request. Returns whether it is marked now.

        `others` are the other tenants that can be to blame as well.
        """
        suspects = others | {tenant}
        noted = self._tenants.pop(tenant, {})
        self._tenants[tenant] = noted  # the last that was changed stands last
        losses = noted.pop(digest, None)
        if losses is None or losses.until <= now:
            losses = _Losses(suspects)
        noted[digest] = losses
        losses.suspects &= suspects
        losses.replicas[replica] = max(1.0 / len(suspects), losses.replicas.get(replica, 0.0))
        losses.until = now + MARK_SECONDS
        if len(noted) > MOST_OF_A_TENANT:
            del noted[next(iter(noted))]
        if len(self._tenants) > MOST_TENANTS:
            del self._tenants[next(iter(self._tenants))]
        return losses.marked

    def seconds_left(self, tenant: str, digest: Callable[[], bytes], now: float) -> float:
        """How long a request is still refused; 0 where it is not.

        `digest` is only asked where something is noted of the tenant, which is rare.
        """
        noted = self._tenants.get(tenant)
        if noted is None:
            return 0.0
        name = digest()
        losses = noted.get(name)
        if losses is None:
            return 0.0
        if losses.until <= now:
            del noted[name]
            if not noted:
                del self._tenants[tenant]
            return 0.0
        return losses.until - now if losses.marked else 0.0

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))
