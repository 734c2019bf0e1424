"""The replicas this router knows, by the tier and model that each serves.

State for each endpoint; `clients.scaler` feeds it, the request path takes places from it. A request
gets replicas that serve the tier as its own version of the policies describes it. So when a tier
gets another model, requests under way keep the replicas of the old one, and new requests get those
of the new one. `group` chooses among the replicas of one such group, and has its line.
"""

import random
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog

from services.router.fleet.group import TierReplicas
from services.router.fleet.place import Place
from services.router.fleet.replica import SILENT, WHOLE, Replica, State
from services.router.fleet.served import strangers, unserved
from services.router.fleet.snapshot import ReplicaLoad, TierLoad
from services.router.fleet.waking import TierWaking
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.policy.routes import Policies, Tier
from services.router.ports import Coming, ReplicaFailed, Waking

log = structlog.get_logger()

COUNTED = (State.STARTING, State.READY, State.DRAINING)

Kind = tuple[str, str, str]
"""What replicas of one group have in common: tier, model, precision."""


class Fleet:
    """All replicas that the scaler reports, grouped."""

    def __init__(
        self,
        policies: Policies,
        metrics: Metrics,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        waking: Waking | None = None,
        forget: Callable[[str], None] = lambda _address: None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Starts without replicas.

        Args:
            policies: in force.
            metrics: what it counts.
            spawn: starts a task that outlives its request and is owned by the process.
            waking: is asked for replicas of tiers that have none; None: nobody is.
            forget: is reported each address where no replica is any more.
            clock: seconds that only grow.
            chance: draws from [0, 1), spreads how long replicas that failed are avoided.
        """
        self._spawn = spawn
        self._clock = clock
        self._chance = chance
        self._metrics = metrics
        self._forget = forget
        self._known: dict[str, Replica] = {}
        self._groups: dict[Kind, TierReplicas] = {}
        self._in_force: dict[str, TierReplicas] = {}
        self._ever_told = False
        self._troubles: dict[str, str] = {}
        self._waking = (
            None
            if waking is None
            else TierWaking(
                waking,
                metrics,
                needed=self._is_missed,
                answered=self._expect,
                spawn=spawn,
                chance=chance,
            )
        )
        self.adopt(policies)
        self.set_stale(stale=True)

    def adopt(self, policies: Policies) -> None:
        """Takes the tiers of policies that come in force.

        Replicas that served no tier may serve one now. A group that is not in force any more stays
        while requests run or wait there.
        """
        self._in_force = {name: self._group(tier) for name, tier in policies.tiers.items()}
        for name, group in self._in_force.items():
            group.adopt(policies.tiers[name])
        for group in list(self._groups.values()):
            self._drop_if_unused(group)
        self._serve()

    def set_stale(self, *, stale: bool) -> None:
        """Marks the fleet as last known (the scaler is away) or current."""
        self.stale = stale
        self._ever_told = self._ever_told or not stale
        self._metrics.fleet_stale.set(1 if stale else 0)
        self._tell_troubles()

    @property
    def last_known(self) -> bool:
        """Whether what is used is the fleet of before, as the scaler is away."""
        return self.stale and self._ever_told

    def trouble(self, tier: str, *, pools: bool) -> str:
        """Why no replica serves a tier, and which might have been meant to, in words.

        Args:
            tier: in force.
            pools: tell of pools that serve no tier too, as operators may hear.

        Returns:
            empty where all is well.
        """
        group = self._in_force.get(tier)
        if group is None:
            return ""
        if not self._ever_told:
            return "the scaler was not reached yet, so no replica is known"
        known = list(self._known.values())
        none = unserved(group.tier, known)
        tiers = [one.tier for one in self._in_force.values()]
        others = strangers(group.tier, tiers, known, every=bool(none)) if pools else ""
        return "; ".join(filter(None, (none, others)))

    def replace(self, replicas: Iterable[Replica]) -> None:
        """Takes the whole fleet: replicas not in it are gone."""
        reported = {replica.id: replica for replica in replicas}
        for replica in [known for known in self._known.values() if known.id not in reported]:
            self._remove(replica)
        self.update(reported.values())

    def update(self, replicas: Iterable[Replica]) -> None:
        """Takes changed replicas."""
        for reported in replicas:
            known = self._known.get(reported.id)
            if known is not None and (
                reported.state is State.GONE or _kind(known) != _kind(reported)
            ):
                self._remove(known)
                known = None
            if known is not None:
                if known.address != reported.address:
                    self._forget(known.address)
                known.state, known.address = reported.state, reported.address
                known.max_in_flight = reported.max_in_flight
            elif reported.state is not State.GONE:
                self._add(reported)
        self._serve()

    def ready(self, tier: str) -> int:
        """Number of replicas that take new requests of the tier."""
        group = self._in_force.get(tier)
        return group.count(State.READY) if group else 0

    def preview(self, tier: str) -> str:
        """The replica that a new request would get now; empty when none has room."""
        group = self._in_force.get(tier)
        chosen = group.choose() if group else None
        return chosen.id if chosen else ""

    def can_answer(self, tier: Tier, avoid: Collection[str] = ()) -> bool:
        """Whether a replica of the tier takes new requests and is known to fail nobody.

        It may be full: then there is a line. Replicas in `avoid` do not count.
        """
        group = self._groups.get((tier.name, tier.model, tier.precision))
        return group is not None and group.can_answer(avoid)

    async def again_seconds(self, tier: Tier) -> float:
        """In about how many seconds it is worth to ask for a tier again whose replica was lost.

        Where none is left the scaler is asked, for half a second at most.
        """
        group = self._group(tier)
        try:
            if self._waking is not None and not group.can_answer():
                await self._waking.ask_once(tier.name)
            return group.again_seconds()
        finally:
            self._drop_if_unused(group)

    async def place(
        self,
        tier: Tier,
        priority: Priority,
        *,
        avoid: Collection[str],
        until: float,
        tenant: str = "",
        elsewhere: Callable[[], bool] | None = None,
    ) -> Place:
        """Takes room for one attempt on a replica: ``async with await fleet.place(…) as place``.

        Args:
            tier: whose replica, as the request's version of the policies describes it.
            priority: standing in the line.
            avoid: replicas where this request failed before.
            until: seconds of the clock at which nobody waits for it any more.
            tenant: whose it is, as tenants take turns; empty where it is nobody's, as evidence is:
                it takes no tenant's share.
            elsewhere: says whether another tier can answer now, so that nobody waits here while
                this one has no replica; None where no other may.

        Raises:
            Overloaded: the line is full, or somebody else's turn took the place in it.
            Unavailable: no replica was ready in the time the tier allows, or there is none and
                another tier can answer.
            DeadlineExceeded: `until` passed in the line.
        """
        group = self._group(tier)
        try:
            replica = await group.acquire(
                priority, tenant=tenant, avoid=avoid, until=until, elsewhere=elsewhere
            )
        finally:
            self._drop_if_unused(group)
        replica.breaker = replica.breaker.tried(self._clock())
        return Place(replica, tier, partial(self._give_back, group, tenant), self._spawn)

    def succeeded(self, replica: Replica) -> None:
        """Notes that the replica answers."""
        if not replica.breaker.closed:
            replica.breaker = WHOLE
            self._serve()  # those who wait for another tier may go to this one

    def failed(self, replica: Replica, *, silent: bool = False) -> None:
        """Notes a failure: the replica is avoided for a while, for longer if it fell silent."""
        breaker = replica.breaker
        if silent and not replica.is_silent:
            breaker = SILENT
        replica.breaker = breaker.failed(self._clock(), self._chance())

    def _is_missed(self, tier: str) -> bool:
        """Whether somebody waits for a tier of which no replica is ready."""
        groups = [group for group in self._groups.values() if group.tier.name == tier]
        return any(group.waiting and not group.count(State.READY) for group in groups)

    def _expect(self, tier: str, coming: Coming) -> None:
        for group in self._groups.values():
            if group.tier.name == tier:
                group.expect(coming)

    def _longest(self, tier: str) -> int:
        group = self._in_force.get(tier)
        return group.tier.max_sequence_tokens if group is not None else 0

    def snapshot(self) -> list[TierLoad]:
        """What waits and runs now; what does so under older policies counts too.

        May be asked from another thread: what it walks over is copied at once.
        """
        by_tier: dict[str, list[TierReplicas]] = {name: [] for name in self._in_force.copy()}
        for group in list(self._groups.values()):
            by_tier.setdefault(group.tier.name, []).append(group)
        return [
            TierLoad(
                tier=name,
                waiting=sum(group.waiting for group in groups),
                running=sum(group.running for group in groups),
                replicas=tuple(
                    ReplicaLoad(replica.id, replica.in_flight)
                    for group in groups
                    for replica in list(group.replicas.values())
                ),
                max_sequence_tokens=self._longest(name),
            )
            for name, groups in by_tier.items()
        ]

    def _give_back(self, taken_from: TierReplicas, tenant: str, replica: Replica) -> None:
        """The first in the line gets the room."""
        taken_from.give_back(replica, tenant)
        group = self._groups.get(_kind(replica))
        if group is not None:
            group.serve()
            self._drop_if_unused(group)

    def _group(self, tier: Tier) -> TierReplicas:
        """The replicas that serve a tier as it is described here."""
        kind = (tier.name, tier.model, tier.precision)
        group = self._groups.get(kind)
        if group is None:
            group = self._groups[kind] = TierReplicas(
                tier,
                self._metrics,
                self._clock,
                (lambda _tier: None) if self._waking is None else self._waking.miss,
            )
            group.replicas |= {
                replica.id: replica for replica in self._known.values() if _kind(replica) == kind
            }
        return group

    def _drop_if_unused(self, group: TierReplicas) -> None:
        tier = group.tier
        if self._in_force.get(tier.name) is group or group.waiting or group.running:
            return
        self._groups.pop((tier.name, tier.model, tier.precision), None)
        if not any(other.tier.name == tier.name for other in self._groups.values()):
            for state in COUNTED:
                self._metrics.replicas.remove(tier.name, state)

    def _add(self, replica: Replica) -> None:
        self._known[replica.id] = replica
        group = self._groups.get(_kind(replica))
        if group is not None:
            group.replicas[replica.id] = replica

    def _remove(self, replica: Replica) -> None:
        del self._known[replica.id]
        group = self._groups.get(_kind(replica))
        if group is not None:
            del group.replicas[replica.id]
        replica.state = State.GONE
        for call in list(replica.calls):
            call.give_up(ReplicaFailed("the replica is gone", lost=True))
        self._forget(replica.address)
        if group is not None:
            self._drop_if_unused(group)

    def _tell_troubles(self) -> None:
        """Logs what ails a tier, once for each change of it."""
        if not self._ever_told:
            return  # the link to the scaler says why
        troubles = {name: self.trouble(name, pools=True) for name in self._in_force}
        for name, trouble in troubles.items():
            before = self._troubles.get(name, "")
            if trouble and trouble != before:
                log.warning("a tier and the pools do not go together", tier=name, trouble=trouble)
            elif before and not trouble:
                log.info("a tier has its replicas again", tier=name)
        self._troubles = troubles

    def _serve(self) -> None:
        """Gives free places to those who wait, and counts replicas."""
        for group in self._groups.values():
            group.serve()
        for name, group in self._in_force.items():
            for state in COUNTED:
                self._metrics.replicas.labels(name, state).set(group.count(state))
        self._tell_troubles()


def _kind(replica: Replica) -> Kind:
    return replica.tier, replica.model, replica.precision
