"""The door: what a checked request must fulfil before it goes on its way, and what holds for it.

Who is refused here leaves no record in the ledger, as nothing was decided.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from services.common.errors import DeadlineExceeded
from services.router.policy.routes import Route
from services.router.ports import LeverBoard
from services.router.request.checked import Checked
from services.router.request.context import RequestContext, RequestState


@dataclass(frozen=True)
class Entry:
    """Lets requests in; state of the process, none of a request.

    Attributes:
        levers: which are halted.
        sign: makes the handle of a request id, tenant, route, and seconds since 1970.
        settled: hears of each request that is let in once nothing of it runs any more.
        chance: draws from [0, 1).
        clock: seconds that only grow.
        wall: seconds since 1970.
    """

    levers: LeverBoard
    sign: Callable[[str, str, str, int], str]
    settled: Callable[[RequestState], None]
    chance: Callable[[], float]
    clock: Callable[[], float]
    wall: Callable[[], float]

    def enter(
        self, checked: Checked, tenant: str, *, arrived: float, left: float | None, streaming: bool
    ) -> RequestState:
        """Lets a request in.

        Args:
            checked: what is asked.
            tenant: who asks.
            arrived: when it came, by the clock.
            left: seconds that its caller gave it then; None where the caller set no deadline.
            streaming: the caller takes the answer in pieces.

        Raises:
            DeadlineExceeded: less is left than its route needs.
        """
        route = checked.route
        until, until_is_ours = arrived + self.seconds(route, left), _is_ours(route, left)
        halted, propensity = self.levers.halted(route), 0.0
        if route.quality is not None:
            evidence = route.quality.evidence
            trusted = route.quality.calibration is not None and not halted
            propensity = evidence.share if trusted else evidence.share_until_calibrated
        request_id = secrets.token_hex(16)
        context = RequestContext(
            request_id=request_id,
            handle=self.sign(request_id, tenant, route.name, int(self.wall())),
            tenant=tenant,
            checked=checked,
            arrived=arrived,
            until=until,
            until_is_ours=until_is_ours,
            streaming=streaming,
            halted=halted,
            propensity=propensity,
            drawn=self.chance() < propensity,
        )
        return RequestState(context, settled=self.settled)

    @staticmethod
    def seconds(route: Route, left: float | None) -> float:
        """How long a request to the route may take whose caller gave it `left`; None: no deadline.

        Raises:
            DeadlineExceeded: less is left than the route needs.
        """
        most = route.most_seconds
        seconds = route.deadline.default_seconds if left is None else left
        if most < seconds:
            return most
        if seconds < route.deadline.shortest_seconds:
            raise DeadlineExceeded(
                f"{max(seconds, 0.0):.3f} s are left; {route.name} needs at least "
                f"{route.deadline.shortest_seconds:g} s",
                reason="DEADLINE_TOO_SHORT",
            )
        return seconds


def _is_ours(route: Route, left: float | None) -> bool:
    """Whether the deadline is the route's, so that gRPC does not watch it for us."""
    return left is None or route.most_seconds < left
