"""The way of a request: cache, tier, tokens, replica, answer.

Reads as a request travels; see `RequestPath.answer`. Whether it keeps the rules and may enter is
known before (`wire.requests`, `entry`). What it looks like on the wire is not known here
(`servicer`), nor how the attempts of one tier go (`runner`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from services.common.errors import Overloaded, ServiceError
from services.router.fleet.fleet import Fleet
from services.router.metrics import Metrics
from services.router.policy.cascade import Cascade
from services.router.policy.decision import Verdict
from services.router.policy.difficulty import features
from services.router.policy.routes import Tier
from services.router.ports import CacheHit
from services.router.request.attempt import Answer, Ending
from services.router.request.context import Listener, RequestContext, RequestState
from services.router.request.plan import Plan
from services.router.request.planner import Planner
from services.router.request.runner import Runner
from services.router.request.stored import Lease, StoredAnswers
from services.router.request.trouble import Poisonous

log = structlog.get_logger()


@dataclass(frozen=True)
class RequestPath:
    """Carries requests along; state of the process, none of a request.

    Attributes:
        answered: hears of each request whose caller has the answer.
        clock: seconds that only grow.
    """

    stored: StoredAnswers
    planner: Planner
    runner: Runner
    fleet: Fleet
    metrics: Metrics
    answered: Callable[[RequestState], None]
    clock: Callable[[], float]

    async def answer(self, state: RequestState, listener: Listener) -> None:
        """Answers a request, from the cache or from a replica.

        Raises:
            ServiceError: what the caller is to see.
        """
        found = await self._stored(state, lease=True)
        if isinstance(found, CacheHit):
            stale = self.fleet.last_known
            await self.stored.replay(state, found, listener, fleet_stale=stale)
        else:
            lease = found
            state.give_way = lease.give_way
            try:
                await self._cascade(state, lease, listener)
            finally:
                lease.give_back()
        self.answered(state)

    async def explain(self, state: RequestState) -> int:
        """Decides without running; fills in `decision` and the answer's `prompt_tokens`.

        Returns:
            the most the answer could cost, in micro-USD.
        """
        found = await self._stored(state, lease=False)
        if isinstance(found, CacheHit):
            state.decision = self.stored.decide(state, found, fleet_stale=self.fleet.last_known)
            state.replay(found.answer)
            return 0
        plan = await self._next(state, _begin(state.context), counted=False)
        step, tokens = plan.step, len(plan.prompt.tokens)
        state.answer.prompt_tokens = tokens
        name = step.tier.name
        decision = state.decide(self.fleet.preview(name), fleet_stale=self.fleet.last_known)
        if trouble := self.fleet.trouble(name, pools=False):
            said = f"{decision.explanation} Tier {name}: {trouble}."
            decision = replace(decision, explanation=said)
        state.decision = decision
        most = step.tier.price.of(tokens, plan.max_output_tokens)
        if step.checked:  # every tier above may get its turn
            above = state.context.route.ladder[step.rung + 1 :]
            most += sum(tier.price.of(tokens, plan.max_output_tokens) for tier in above)
        return most

    async def _stored(self, state: RequestState, *, lease: bool) -> CacheHit | Lease:
        """The stored answer, or the leave to write one.

        Nothing is stored for what no tier takes: the cache, which all tenants share, is not asked.
        """
        if state.context.checked.read_cache:
            await self.planner.refuse_too_long(state)
        return await self.stored.ask(state, lease=lease)

    async def _cascade(self, state: RequestState, lease: Lease, listener: Listener) -> None:
        """Up the ladder until an answer stands."""
        cascade = _begin(state.context)
        while True:
            plan = await self._next(state, cascade, counted=True)
            tier = plan.step.tier
            try:
                attempt = await self.runner.run(state, plan, listener, lease)
            except (Overloaded, Poisonous):  # neither a crowd nor poison is moved to a dearer tier
                raise
            except ServiceError as error:
                late = self.clock() >= state.context.until
                if late or not plan.step.checked or state.committed:
                    raise
                log.warning("a lower tier gives way", tier=tier.name, why=error.reason)
                cascade.pass_over(Verdict.UNAVAILABLE)
                continue
            if attempt.ending is Ending.STOOD:
                return
            # It was not good enough: the next tier has its turn in the cascade.
            state.answer = Answer()
            self.metrics.escalations.labels(state.context.route.name, tier.name).inc()

    async def _next(self, state: RequestState, cascade: Cascade, *, counted: bool) -> Plan:
        """The plan of the next tier that may be tried.

        A lower tier of which no replica can answer is passed over where one above can: a dearer
        answer now is better than one after a wait. That is never so of the top tier, which alone
        may answer what nothing below was sure of. `counted` says whether such a turn is load of
        the tier, though it runs nowhere: it is what would have run there.
        """
        state.cascade = cascade
        while True:
            step = cascade.step()
            found = await self.planner.plan(state, step)
            if not isinstance(found, Plan):
                cascade.pass_over(found)
            elif step.checked and self._is_away(state, step.tier):
                if counted:
                    self.runner.load.arrived(step.tier.name, prompt_tokens=len(found.prompt.tokens))
                cascade.pass_over(Verdict.UNAVAILABLE)
            else:
                return found

    def _is_away(self, state: RequestState, tier: Tier) -> bool:
        """Whether no replica of a tier can answer now and one of a tier behind it can."""
        return not self.fleet.can_answer(tier) and self.runner.trouble.elsewhere(state)


def _begin(context: RequestContext) -> Cascade:
    """A request's cascade, at its first step."""
    checked = context.checked
    wanted = context.drawn or checked.compiled.uses_features
    found = features(checked.written, checked.signals) if wanted else ()
    return checked.compiled.cascade(context.halted, found)
