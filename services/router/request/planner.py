"""Plans what one tier is to do for a request: its prompt, how long it may answer, until when."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from services.common.errors import BadRequest, Unavailable, Violation
from services.router.admission.tokenising import Tokenising
from services.router.fleet.load import LoadWindow
from services.router.policy.cascade import Step
from services.router.policy.decision import Verdict
from services.router.policy.line import Priority
from services.router.policy.prompts import Message
from services.router.policy.routes import Tier
from services.router.ports import Prompt, TooLong
from services.router.request.attempt import Ending
from services.router.request.context import RequestContext, RequestState
from services.router.request.hold import hold_back_for
from services.router.request.plan import Cause, HoldBack, Plan

SHARE_OF_WAIT = 0.5
"""Share of the time left that a request waits for a tier that another one stands behind."""


class Planner:
    """Plans the steps of requests; state of the process."""

    def __init__(
        self, load: LoadWindow, tokenising: Tokenising, clock: Callable[[], float]
    ) -> None:
        """`clock` gives seconds that only grow."""
        self._load = load
        self._tokenising = tokenising
        self._clock = clock

    async def refuse_too_long(self, state: RequestState) -> None:
        """Refuses what no tier can take, as far as that shows without tokenising it.

        `plan` finds that too; this is for what is done with a request before it is planned.

        Raises:
            BadRequest: it is too long, or the template refuses the conversation.
            Overloaded, DeadlineExceeded: see `Tokenising.tokens`.
        """
        context, counts = state.context, list[int]()
        compiled = context.checked.compiled
        for tier in compiled.by_text:
            limit = compiled.longest(tier)
            count = await self._tokenising.least_tokens(
                compiled.text(tier),
                context.messages,
                limit,
                tenant=context.tenant,
                priority=context.checked.priority,
                until=context.until,
            )
            if count < limit:
                return
            counts.append(count)
        raise _too_long(context.route.top_tier, f"at least {counts[0]}")

    async def plan(self, state: RequestState, step: Step) -> Plan | Verdict:
        """The step's plan, or why the tier is passed over: a limit keeps it from its turn.

        Raises:
            BadRequest: no tier above could take it either.
            Overloaded: too many long prompts wait already.
        """
        context, tier = state.context, step.tier
        tokens = await self._tokens(state, tier, context.messages, context.until)
        if isinstance(tokens, TooLong):
            if step.checked:
                return Verdict.LIMITED
            raise _too_long(tier, f"at least {tokens.tokens}")
        prompt = Prompt(tuple(context.messages), tokens)
        if context.trimmed and not state.baseline_prompt_tokens:
            top, messages = context.route.top_tier, context.checked.asked.messages
            whole = await self._tokens(state, top, messages, context.until)
            count = whole.tokens if isinstance(whole, TooLong) else len(whole)
            state.baseline_prompt_tokens = count
        wanted = context.checked.asked.max_output_tokens
        room = tier.max_sequence_tokens - len(prompt.tokens)
        limit = min(wanted, room)
        if step.checked:
            roomier = tier.max_sequence_tokens < context.route.top_tier.max_sequence_tokens
            short = room < 1 or (roomier and room < wanted)
            if short or not self._allowed(state, tier, len(prompt.tokens), limit):
                return Verdict.LIMITED
        elif room < 1:
            raise _too_long(tier, str(len(prompt.tokens)))
        else:
            limit = min(limit, _affordable(state, tier, len(prompt.tokens)))
        now, hold = self._clock(), hold_back_for(step, context)
        until = now + (context.until - now) * SHARE_OF_WAIT if step.checked else context.until
        return Plan(
            step=step,
            prompt=prompt,
            max_output_tokens=limit,
            began=now,
            until=until,
            deadline=context.until,
            cause=_cause(state),
            priority=context.checked.priority,
            hold=hold,
            streams=_streams(context, hold),
        )

    async def evidence(
        self, state: RequestState, rung: int, messages: Sequence[Message], until: float
    ) -> Plan | None:
        """The plan of a run that nobody waits for; None where the prompt leaves the tier no room.

        `until` is when it is given up.
        """
        context = state.context
        tier = context.route.ladder[rung]
        tokens = await self._tokens(state, tier, messages, until, Priority.BACKGROUND)
        if isinstance(tokens, TooLong):
            return None
        room = tier.max_sequence_tokens - len(tokens)
        if room < 1:
            return None
        return Plan(
            step=Step(tier, rung, checked=False, needs_certainty=True),
            prompt=Prompt(tuple(messages), tokens),
            max_output_tokens=min(context.checked.asked.max_output_tokens, room),
            began=self._clock(),
            until=until,
            deadline=until,
            cause=Cause.EVIDENCE,
            priority=Priority.BACKGROUND,
            hold=None,
            streams=bool(context.checked.asked.stop),
        )

    async def _tokens(
        self,
        state: RequestState,
        tier: Tier,
        messages: Sequence[Message],
        until: float,
        priority: Priority | None = None,
    ) -> Sequence[int] | TooLong:
        """The conversation in the tier's tokens, looked at once for each tokenizer.

        Too long is what no tier with this tokenizer takes.
        """
        checked = state.context.checked
        text = checked.compiled.text(tier)
        key = (id(text), id(messages))
        tokens = state.encoded.get(key)
        if tokens is None:
            tokens = state.encoded[key] = await self._tokenising.tokens(
                text,
                messages,
                checked.compiled.longest(tier),
                tenant=state.context.tenant,
                priority=checked.priority if priority is None else priority,
                until=until,
            )
        return tokens

    def _allowed(self, state: RequestState, tier: Tier, prompt_tokens: int, limit: int) -> bool:
        """Whether money and time suffice for trying this tier and then the top one.

        Waits in line do not count: they are those of whoever brings many.
        """
        if not _affords_both(state, tier, prompt_tokens, limit):
            return False
        context, now = state.context, self._clock()
        tiers = tier, context.route.top_tier
        seconds = [self._load.slow_run_seconds(tier.name, now) or 0.0 for tier in tiers]
        return now + sum(seconds) < context.until


def again(state: RequestState, plan: Plan) -> Plan:
    """The plan of another attempt, after one was lost: what that one cost is gone.

    Raises:
        Unavailable: the route's money does not suffice for it.
    """
    budget, tier = state.context.route.limits.micro_usd, plan.step.tier
    if budget is None or plan.cause is Cause.EVIDENCE:
        return plan
    tokens = len(plan.prompt.tokens)
    if not plan.step.checked:
        limit = min(plan.max_output_tokens, _affordable(state, tier, tokens))
        return replace(plan, max_output_tokens=limit)
    if not _affords_both(state, tier, tokens, plan.max_output_tokens):
        raise _spent()
    return plan


def _too_long(tier: Tier, got: str) -> BadRequest:
    rule = f"{tier.name} takes fewer than {tier.max_sequence_tokens} tokens, got {got}"
    return BadRequest.of(Violation("prompt", rule))


def _cause(state: RequestState) -> Cause:
    """Why the next tier runs: none has yet, the one before gave no answer, or none that stood."""
    if not state.attempts:
        return Cause.FIRST
    failed = state.attempts[-1].ending is Ending.FAILED
    return Cause.RETRY if failed else Cause.ESCALATION


def _streams(context: RequestContext, hold: HoldBack | None) -> bool:
    """Whether the replica is to send text as it is made.

    Where a stop text may end the answer it is, whoever waits for it: an engine goes on beyond a
    text that it cannot match as tokens, and only what it streams can be ended there.
    """
    if context.checked.asked.stop:
        return True
    return context.streaming and (hold is None or hold.first_tokens is not None)


def _affords_both(state: RequestState, tier: Tier, prompt_tokens: int, limit: int) -> bool:
    """Whether the route's money pays for a tier and then the top one."""
    budget = state.context.route.limits.micro_usd
    if budget is None:
        return True
    tiers = tier, state.context.route.top_tier
    return state.micro_usd + sum(one.price.of(prompt_tokens, limit) for one in tiers) <= budget


def _affordable(state: RequestState, tier: Tier, prompt_tokens: int) -> int:
    """Most output tokens that the route's money allows.

    Raises:
        BadRequest: it does not even pay for the prompt.
        Unavailable: it would have, but lost attempts have spent it.
    """
    budget = state.context.route.limits.micro_usd
    asked = state.context.checked.asked.max_output_tokens
    if budget is None:
        return asked
    left = budget - state.micro_usd
    tokens = tier.price.affords(left, prompt_tokens, asked)
    if tokens < 1 and tier.price.affords(budget, prompt_tokens, asked) >= 1:
        raise _spent()
    if tokens < 1:
        needed = tier.price.of(prompt_tokens, 1)
        rule = f"costs {needed} micro-USD on {tier.name}, {left} are left of {budget}"
        raise BadRequest.of(Violation("prompt", rule))
    return tokens


def _spent() -> Unavailable:
    return Unavailable(
        "lost attempts have spent what the route allows for one request", reason="BUDGET_SPENT"
    )
