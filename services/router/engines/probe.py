"""Finds out whether a tier's engine tells log-probabilities, by one small request at the start.

Engines exist that fill absent log-probabilities with zeros, and models exist whose tokens are so
certain that zeros are true. A few tokens drawn at the highest temperature tell the two apart: they
cannot all have been certain. What is found holds for the model and its precision.
"""

import asyncio
from collections.abc import Callable

import structlog

from services.common.errors import ServiceError
from services.router.fleet.fleet import Fleet
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.policy.prompts import Message
from services.router.policy.routes import Tier
from services.router.ports import Asked, Engine, EngineRequest, Prompt, ReplicaFailed, TierText
from services.router.routes.compiled import Compiled

log = structlog.get_logger()

LOOK_SECONDS = 0.5
TRIES = 3
"""Probes of a tier that told nothing before it counts as one that cannot tell."""

TOKENS = 16
MIN_TOKENS = 4
"""Tokens that a probe must have drawn to tell anything."""

SECONDS = 10.0
QUESTION = (Message("user", "Name a colour, a number, an animal and a town."),)
SAMPLED = Asked(
    messages=QUESTION,
    guide=None,
    max_output_tokens=TOKENS,
    temperature=2.0,
    top_p=1.0,
    top_k=0,
    seed=None,
    stop=(),
)


class LogProbProbe:
    """Probes the tiers whose certainty a route asks for; state of the process."""

    def __init__(
        self,
        *,
        engine: Engine,
        fleet: Fleet,
        compiled: Callable[[], Compiled],
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        """`compiled` gives the version of the policies in force."""
        self._engine = engine
        self._fleet = fleet
        self._compiled = compiled
        self._metrics = metrics
        self._clock = clock
        self._tries: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Probes what is not known yet and has a replica. Runs for ever; the caller owns it."""
        while True:
            compiled = self._compiled()  # others may come in force while a probe runs
            for tier in self._unknown(compiled):
                await self._probe(tier, compiled.texts[tier.tokenizer])
            await asyncio.sleep(LOOK_SECONDS)

    def _unknown(self, compiled: Compiled) -> list[Tier]:
        """Tiers that must be asked, and can be."""
        checked = {
            tier.name: tier
            for route in compiled.policies.routes.values()
            if route.quality is not None
            for tier in route.ladder
        }
        return [
            tier
            for tier in checked.values()
            if self._engine.capabilities(tier).has_log_probs is None
            and self._fleet.ready(tier.name)
        ]

    async def _probe(self, tier: Tier, text: TierText) -> None:
        kind = (tier.model, tier.precision)
        self._tries[kind] = self._tries.get(kind, 0) + 1
        try:
            async with asyncio.timeout(SECONDS):
                found = await self._ask(tier, text)
        except (TimeoutError, ReplicaFailed, ServiceError) as error:
            log.info("a probe failed", tier=tier.name, why=str(error) or "no answer in time")
            self._tries[kind] -= 1  # it says nothing about the engine
            return
        except Exception:  # such as a template that cannot take the question
            log.exception("a probe failed", tier=tier.name)
            found = None
        if found is None and self._tries[kind] < TRIES:
            return
        self._engine.learn_log_probs(tier, has=bool(found))
        self._metrics.log_probs.labels(tier.name).set(1 if found else 0)
        if found:
            log.info("an engine tells log-probabilities", tier=tier.name)
        else:
            log.warning("an engine tells no log-probabilities", tier=tier.name, tries=TRIES)

    async def _ask(self, tier: Tier, text: TierText) -> bool | None:
        """Whether it tells them; None where its answer was too short to say.

        Raises:
            ReplicaFailed, ServiceError: it could not be asked.
        """
        prompt = Prompt(QUESTION, text.encode(QUESTION))
        request = EngineRequest(
            tier=tier,
            text=text,
            prompt=prompt,
            asked=SAMPLED,
            max_output_tokens=TOKENS,
            request_id="probe",
            streaming=False,
            log_probs=True,
            deadline_seconds=SECONDS,
        )
        until = self._clock() + SECONDS
        place = await self._fleet.place(tier, Priority.BACKGROUND, avoid=(), until=until)
        async with place:
            call = place.start(self._engine, request, patience=lambda: SECONDS, ended=lambda: None)
            while not (await call.read(SECONDS)).ended:
                pass
            made = call.output_tokens
            self._metrics.probe_tokens.labels(tier.name).inc(len(prompt.tokens) + made)
            log_probs = call.log_probs(made)
        if log_probs is not None and any(log_probs):
            return True
        return False if made >= MIN_TOKENS else None
