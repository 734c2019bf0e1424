"""Puts the router together from its settings."""

import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from services.common.channel import Peer
from services.common.kept_up import kept_up
from services.common.telemetry import Tracing
from services.common.versions import PolicyStore
from services.router.admission.long_work import LongWork
from services.router.admission.permits import Permits
from services.router.admission.tokenising import Tokenising
from services.router.clients.cache import CacheStream
from services.router.clients.scaler import ScalerLink
from services.router.clients.waking import ScalerWaking
from services.router.config import RouterSettings
from services.router.engines.probe import LogProbProbe
from services.router.engines.texts import Texts
from services.router.engines.tokenizer import ModelText
from services.router.engines.triton import TritonEngine
from services.router.evidence.drift import DriftWatch
from services.router.evidence.handles import HandleSigner
from services.router.evidence.judges import Judges
from services.router.evidence.outcomes import Outcomes, turns_at_the_state
from services.router.evidence.pairs import Pairs
from services.router.fleet.fleet import Fleet
from services.router.fleet.load import LoadWindow
from services.router.fleet.snapshot import LoadCollector
from services.router.ledger.file import FileLedger
from services.router.ledger.request_record import Records
from services.router.levers.board import SharedLeverBoard
from services.router.metrics import Metrics
from services.router.policy.long_prompts import Room
from services.router.policy.pace import Paces
from services.router.policy.permits import Crowd
from services.router.policy.poison import PoisonMarks
from services.router.policy.routes import Policies
from services.router.ports import Engine
from services.router.request.context import RequestState
from services.router.request.entry import Entry
from services.router.request.hold import Checks
from services.router.request.path import RequestPath
from services.router.request.planner import Planner
from services.router.request.runner import Runner
from services.router.request.stored import StoredAnswers
from services.router.request.trouble import Trouble
from services.router.request.unread import SlowReaders
from services.router.routes.compiled import Compiled
from services.router.routes.files import PolicyFiles
from services.router.routes.in_force import InForce
from services.router.routes.watch import PolicyWatch
from services.router.servicer import RouterServicer
from services.router.state.store import SharedState
from services.router.wire.levers import LeverCalls

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What of a router the process runs, starts and ends."""

    in_force: InForce
    engine: Engine
    cache: CacheStream
    scaler: ScalerLink
    watch: PolicyWatch
    levers: SharedLeverBoard
    checks: LongWork
    tokenising: Tokenising
    probe: LogProbProbe | None
    judges: Judges
    pairs: Pairs
    drift: DriftWatch
    slow_readers: SlowReaders
    ledger: FileLedger
    servicer: RouterServicer

    def links(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside requests, for ever."""
        works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "cache": self.cache.run,
            "fleet": self.scaler.watch,
            "load reports": self.scaler.report,
            "silent replicas": self.engine.watch,
            "policies": self.watch.run,
            "levers": self.levers.run,
            "drift": self.drift.run,
            "slow readers": self.slow_readers.run,
        }
        if self.probe is not None:
            works["log-probabilities"] = self.probe.run
        return [kept_up(name, work) for name, work in works.items()]

    async def close(self) -> None:
        """Closes all connections."""
        await self.judges.close()
        await self.engine.close()
        self.checks.close()
        self.tokenising.close()


def assemble(
    settings: RouterSettings,
    state: SharedState,
    metrics: Metrics,
    tracing: Tracing,
    spawn: Callable[[Coroutine[Any, Any, None]], Any],
) -> Parts:
    """Makes every part of a router; nothing runs yet.

    Args:
        settings: what it is told.
        state: shared with other routers.
        metrics: what it counts.
        tracing: where spans go.
        spawn: starts a task that outlives its request and is owned by the process.

    Raises:
        ConfigError: a file or folder that the settings name cannot be used.
    """
    clock, wall, chance = time.monotonic, time.time, random.random
    files = PolicyFiles(settings.routes_file, settings.prices_file, wall=wall)
    texts = Texts(ModelText)

    def prepare(policies: Policies) -> Compiled:
        return Compiled(policies, texts.of(tier.tokenizer for tier in policies.tiers.values()))

    in_force = InForce(prepare(files.load()))
    engine = TritonEngine(grpc_errors=settings.triton_grpc_errors, clock=clock)

    def peer(address: str) -> Peer:
        return Peer(address, settings.service_key_file, settings.peer_tls_ca)

    fleet = Fleet(
        in_force.now,
        metrics,
        spawn=spawn,
        waking=ScalerWaking(peer(settings.scaler_address)),
        forget=engine.forget,
        clock=clock,
        chance=chance,
    )
    load = LoadWindow()
    metrics.registry.register(LoadCollector(fleet.snapshot))
    ledger = FileLedger(settings.ledger_folder, settings.name, metrics)
    records = Records(metrics, ledger, clock=clock, wall=wall)
    signer = HandleSigner.load(settings.handle_key_file)
    if settings.handle_key_file is None:
        log.warning("no handle_key_file: request handles end with this process")

    timeout = settings.cache_timeout_seconds
    cache = CacheStream(
        peer(settings.cache_address),
        timeout_seconds=timeout,
        metrics=metrics,
        tracing=tracing,
        clock=clock,
        chance=chance,
    )
    store = PolicyStore(settings.policy_folder)
    levers = SharedLeverBoard(
        state=state, in_force=in_force, metrics=metrics, clock=clock, wall=wall
    )
    judges = Judges(metrics, peer, clock=clock, chance=chance)
    drift = DriftWatch(metrics)
    room = Room(at_once=settings.long_prompts_at_once)
    checks, tokenising = LongWork("checking", clock, room), Tokenising(clock, room)
    turns = turns_at_the_state(clock)
    outcomes = Outcomes(
        in_force=in_force,
        signer=signer,
        keeper=state,
        turns=turns,
        digests=checks,
        ledger=ledger,
        levers=levers,
        metrics=metrics,
        clock=clock,
        wall=wall,
    )
    planner, answers = Planner(load, tokenising, clock), Checks(checks)
    runner = Runner(
        fleet=fleet,
        engine=engine,
        load=load,
        metrics=metrics,
        paces=Paces(),
        trouble=Trouble(fleet, load, metrics, PoisonMarks(), clock),
        checks=answers,
        attempt_over=records.attempt,
        spawn=spawn,
        clock=clock,
        chance=chance,
    )
    pairs = Pairs(
        planner=planner,
        runner=runner,
        checks=answers,
        judge=judges,
        levers=levers,
        keeper=state,
        digest=signer.digest,
        question=signer.question,
        settle=outcomes.settle,
        turns=turns,
        long_work=checks,
        metrics=metrics,
        spawn=spawn,
        wall=wall,
    )

    probe = LogProbProbe(
        engine=engine,
        fleet=fleet,
        compiled=lambda: in_force.compiled,
        metrics=metrics,
        clock=clock,
    )

    def answered(state: RequestState) -> None:
        drift.note(state.context.route, state.cascade)
        if state.context.drawn:
            pairs.gather(state)

    path = RequestPath(
        stored=StoredAnswers(cache=cache, checks=answers, metrics=metrics, clock=clock),
        planner=planner,
        runner=runner,
        fleet=fleet,
        metrics=metrics,
        answered=answered,
        clock=clock,
    )
    entry = Entry(
        levers=levers,
        sign=signer.sign,
        settled=records.settled,
        chance=chance,
        clock=clock,
        wall=wall,
    )
    watch = PolicyWatch(
        files,
        in_force,
        prepare,
        store,
        metrics,
        adopters=(fleet.adopt, load.adopt, drift.adopt),
        wall=wall,
    )
    slow_readers = SlowReaders(
        metrics=metrics,
        most_seconds=settings.unread_seconds,
        most_bytes=settings.unread_bytes,
        clock=clock,
    )
    servicer = RouterServicer(
        entry=entry,
        path=path,
        in_force=in_force,
        fleet=fleet,
        records=records,
        outcomes=outcomes,
        levers=LeverCalls(levers, in_force),
        refusal=lambda: watch.refusal,
        permits=Permits(Crowd(requests=settings.requests_at_once)),
        checks=checks,
        slow_readers=slow_readers,
        max_prompt_characters=settings.max_prompt_characters,
        clock=clock,
    )
    return Parts(
        in_force=in_force,
        engine=engine,
        cache=cache,
        scaler=ScalerLink(
            peer(settings.scaler_address),
            fleet,
            load,
            metrics,
            router=settings.name,
            wall=wall,
            chance=chance,
        ),
        watch=watch,
        levers=levers,
        checks=checks,
        tokenising=tokenising,
        probe=probe if settings.probe_engines else None,
        judges=judges,
        pairs=pairs,
        drift=drift,
        slow_readers=slow_readers,
        ledger=ledger,
        servicer=servicer,
    )
