"""Judges of answers: those that compare texts here, and those behind gRPC.

A judge never holds anything up or brings anything down: what it does not say in time, or says
wrongly, leaves the pair unjudged and is counted. A judge behind gRPC is not shown our service key,
which may act for any tenant: keep it on the private network, with TLS where the peers' CA is set.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import grpc
import structlog

from pennyweight.judge.v1 import judge_pb2 as pb
from pennyweight.judge.v1 import judge_pb2_grpc
from services.common.backoff import Backoff
from services.common.breaker import Breaker
from services.common.calls import is_cancelled
from services.common.channel import Peer
from services.router.metrics import Metrics
from services.router.policy.judging import by_form, by_match, by_similarity, sensible
from services.router.policy.routes import JudgeKind, Judging, Route
from services.router.ports import Asked

log = structlog.get_logger()

MAX_AT_ONCE = 8
"""Calls of one judge that run at once; more pairs are left unjudged."""

FAILURES_IN_A_ROW = 5
REST_SECONDS = 30.0
TRUSTED = Breaker(FAILURES_IN_A_ROW, Backoff(REST_SECONDS, REST_SECONDS))
"""After so many failures in a row a judge is left alone for so long; then one call tries it."""

INLINE_CHARACTERS = 2_000
"""Longer texts are compared in a thread: requests under way share the event loop."""


class Judges:
    """The `Judge` of every kind; state of the process."""

    def __init__(
        self,
        metrics: Metrics,
        peer: Callable[[str], Peer],
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Connects to nothing yet.

        Args:
            metrics: where failures are counted.
            peer: gives the way to an address; asked anew for each connection.
            clock: seconds that only grow.
            chance: draws from [0, 1), shuffles answers before a judge sees them.
        """
        self._metrics = metrics
        self._peer = peer
        self._clock = clock
        self._chance = chance
        self._remote: dict[str, _Remote] = {}

    async def judge(
        self, route: Route, asked: Asked, answers: Sequence[str]
    ) -> Sequence[float] | None:
        """See `Judge.judge`."""
        if len(answers) < 2:  # noqa: PLR2004 -- nothing to compare
            return None
        judging = route.quality.evidence.judge if route.quality is not None else Judging()
        try:
            if judging.kind is JudgeKind.MODEL:
                return await self._ask(judging, route, asked, answers)
            return await _compare(judging, asked, answers)
        except _Unjudged as failed:
            why = failed.why
        except Exception as error:  # noqa: BLE001 -- a judge brings nothing down
            # Neither message nor traceback: they may hold text of the answers.
            log.error("judging failed", route=route.name, error=type(error).__name__)  # noqa: TRY400 -- see above
            why = "failed"
        self._metrics.judge_failures.labels(route.name, why).inc()
        return None

    async def close(self) -> None:
        """Closes the connections; who still waits for a judge gets None."""
        await asyncio.gather(*(judge.channel.close() for judge in self._remote.values()))

    async def _ask(
        self, judging: Judging, route: Route, asked: Asked, answers: Sequence[str]
    ) -> Sequence[float]:
        """Asks a judge behind gRPC.

        Raises:
            _Unjudged: it did not say.
        """
        remote = self._remote.get(judging.address)
        if remote is None:
            channel = self._peer(judging.address).open()
            remote = self._remote[judging.address] = _Remote(channel)
        if remote.running >= MAX_AT_ONCE:
            raise _Unjudged("busy")
        now = self._clock()
        if not remote.breaker.allows(now):
            raise _Unjudged(remote.why)
        is_trial = not remote.breaker.closed
        remote.breaker = remote.breaker.tried(now)
        *others, best = range(len(answers))
        # Their order would tell which tier wrote which.
        order = [*sorted(others, key=lambda _: self._chance()), best]
        request = pb.JudgeRequest(
            route=route.name,
            turns=[
                pb.Turn(role=message.role, content=message.content) for message in asked.messages
            ],
            answers=[answers[at] for at in order],
        )
        remote.running += 1
        try:
            if is_trial:
                await remote.renew(self._peer(judging.address))
            said = await _call(remote.stub, request, judging.timeout_seconds)
        except _Unjudged as failed:
            remote.failed(failed.why, self._clock())
            raise
        finally:
            remote.running -= 1
        remote.breaker = remote.breaker.succeeded()
        by_answer = dict(zip(order, said, strict=True))
        return [by_answer[at] for at in range(len(answers))]


class _Unjudged(Exception):
    """A judge did not judge; `why` is silent, failed, nonsense or busy."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class _Remote:
    """A judge behind gRPC.

    Attributes:
        channel: to it.
        running: calls under way.
        breaker: on the judges' clock.
        why: how it failed last.
    """

    channel: grpc.aio.Channel
    running: int = 0
    breaker: Breaker = TRUSTED
    why: str = ""
    stub: "judge_pb2_grpc.JudgeServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        self.stub = judge_pb2_grpc.JudgeServiceStub(self.channel)

    async def renew(self, peer: Peer) -> None:
        """Gets a channel of its own, which looks its name up at once and trusts who is trusted now.

        Raises:
            _Unjudged: the authority cannot be read.
        """
        try:
            channel = await peer.opened()
        except OSError as error:
            raise _Unjudged("failed") from error
        before, self.channel = self.channel, channel
        self.stub = judge_pb2_grpc.JudgeServiceStub(channel)
        await before.close()

    def failed(self, why: str, now: float) -> None:
        """Notes a failure."""
        trusted, self.breaker, self.why = self.breaker.closed, self.breaker.failed(now), why
        if trusted and not self.breaker.closed:
            log.warning("a judge is left alone for a while", why=why, seconds=REST_SECONDS)


async def _call(
    stub: "judge_pb2_grpc.JudgeServiceAsyncStub", request: pb.JudgeRequest, seconds: float
) -> tuple[float, ...]:
    """Qualities in the order of the request.

    Raises:
        _Unjudged: there are none.
    """
    try:
        response = await stub.Judge(request, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        raise _Unjudged("silent" if late else "failed") from error
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        # grpc raises this also when the call alone was cancelled: by the judge, or by `close`.
        raise _Unjudged("failed") from None
    found = sensible(response.qualities, len(request.answers))
    if found is None:
        raise _Unjudged("nonsense")
    return found


async def _compare(
    judging: Judging, asked: Asked, answers: Sequence[str]
) -> Sequence[float] | None:
    """What the texts alone tell; None where they tell nothing."""
    size = sum(map(len, answers))
    work: Callable[[], Sequence[float] | None]
    match judging.kind:
        case JudgeKind.MATCH:
            work = partial(by_match, answers)
        case JudgeKind.SIMILARITY:
            work = partial(by_similarity, answers, judging.least_similarity)
        case JudgeKind.SCHEMA:
            if asked.guide is None:  # no form was asked for
                return None
            kind, form = asked.guide
            size += len(form)
            work = partial(by_form, answers, kind.value, form)
        case JudgeKind.OUTCOME | JudgeKind.MODEL:  # one may come; the other is asked elsewhere
            return None
        case _:
            assert_never(judging.kind)
    return work() if size <= INLINE_CHARACTERS else await asyncio.to_thread(work)
