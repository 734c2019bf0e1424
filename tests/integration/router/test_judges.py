"""Judges of answers: here and behind gRPC, good and bad ones. None of them brings anything down."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from pennyweight.judge.v1 import judge_pb2 as pb
from pennyweight.judge.v1 import judge_pb2_grpc
from pennyweight.router.v1 import router_pb2
from services.common.channel import Peer
from services.router.evidence.judges import (
    FAILURES_IN_A_ROW,
    INLINE_CHARACTERS,
    MAX_AT_ONCE,
    REST_SECONDS,
    Judges,
)
from services.router.metrics import Metrics
from services.router.policy.prompts import Message
from services.router.policy.routes import EvidencePolicy, JudgeKind, Judging, Route
from services.router.ports import Asked, GuideKind
from tests.integration.client.scripted_router import ScriptedRouter, serve, summary
from tests.integration.router.processes import Process
from tests.integration.router.world import PATIENCE, until
from tests.making.policies import ladder, quality, route
from tests.making.ports import free_port

ANSWERS = ("in a week", "in five days", "in 5 days")


def asked(guide: tuple[GuideKind, str] | None = None) -> Asked:
    return Asked(
        messages=(Message("system", "Be brief."), Message("user", "When does my card arrive?")),
        guide=guide,
        max_output_tokens=16,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        seed=None,
        stop=(),
    )


def judged(kind: JudgeKind, address: str = "", **options: Any) -> Route:
    judging = Judging(kind, address, **options)
    rungs = ladder("small", "medium", "large")
    return route("chat", *rungs, quality=quality(evidence=EvidencePolicy(judge=judging)))


def by_words(request: pb.JudgeRequest) -> list[float]:
    """Quality by what is said, whatever the order."""
    return [{"in a week": 0.25, "in five days": 0.75}.get(one, 1.0) for one in request.answers]


@dataclass
class ScriptedJudge(judge_pb2_grpc.JudgeServiceServicer):
    """A judge that says what the test wants."""

    say: Callable[[pb.JudgeRequest], Sequence[float]] = by_words
    aborts_with: grpc.StatusCode | None = None
    waits_for: asyncio.Event | None = None
    requests: list[pb.JudgeRequest] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    async def Judge(self, request: pb.JudgeRequest, context: Any) -> pb.JudgeResponse:  # noqa: N802
        self.requests.append(request)
        self.shown |= {str(name) for name, _ in context.invocation_metadata()}
        if self.waits_for is not None:
            try:
                await self.waits_for.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.aborts_with is not None:
            await context.abort(self.aborts_with, "no")
        return pb.JudgeResponse(qualities=self.say(request))


@pytest.fixture
async def remote() -> AsyncIterator[ScriptedJudge]:
    judge = ScriptedJudge()
    server = grpc.aio.server()
    judge_pb2_grpc.add_JudgeServiceServicer_to_server(judge, server)
    judge.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield judge
    await server.stop(0)


class Court:
    """`Judges`, with their metrics and a clock that the test moves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.now = 1000.0
        self.opened: list[str] = []
        self.judges = Judges(
            Metrics(self.registry), self._peer, clock=lambda: self.now, chance=Random(7).random
        )

    async def ask(
        self, address: str, answers: Sequence[str] = ANSWERS, seconds: float = PATIENCE
    ) -> Sequence[float] | None:
        chat = judged(JudgeKind.MODEL, address, timeout_seconds=seconds)
        return await self.judges.judge(chat, asked(), answers)

    def failures(self) -> dict[str, float]:
        """How many of each kind were counted."""
        (metric,) = (
            one
            for one in self.registry.collect()
            if one.name == "pennyweight_router_judge_failures"
        )
        return {
            sample.labels["why"]: sample.value
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["route"] == "chat"
        }

    def _peer(self, address: str) -> Peer:
        self.opened.append(address)
        return Peer(address)


@pytest.fixture
async def court() -> AsyncIterator[Court]:
    one = Court()
    yield one
    await one.judges.close()


# --- a judge behind gRPC -------------------------------------------------------------------------


async def test_a_judge_sees_what_was_asked_and_the_top_tiers_answer_last(
    court: Court, remote: ScriptedJudge
) -> None:
    assert await court.ask(remote.address) == [0.25, 0.75, 1.0]
    (request,) = remote.requests
    assert request.route == "chat"
    assert [(turn.role, turn.content) for turn in request.turns] == [
        ("system", "Be brief."),
        ("user", "When does my card arrive?"),
    ]
    assert sorted(request.answers) == sorted(ANSWERS)
    assert request.answers[-1] == "in 5 days"
    assert court.failures() == {}


async def test_a_judge_is_not_shown_our_key(court: Court, remote: ScriptedJudge) -> None:
    await court.ask(remote.address)
    assert "user-agent" in remote.shown
    assert "authorization" not in remote.shown


async def test_the_order_of_answers_does_not_tell_who_wrote_them(
    court: Court, remote: ScriptedJudge
) -> None:
    for _ in range(12):
        assert await court.ask(remote.address) == [0.25, 0.75, 1.0]
    assert len({tuple(request.answers) for request in remote.requests}) == 2


async def test_one_connection_serves_all_pairs(court: Court, remote: ScriptedJudge) -> None:
    await asyncio.gather(*(court.ask(remote.address) for _ in range(5)))
    assert court.opened == [remote.address]


async def test_a_judge_that_hangs_leaves_the_pair_unjudged(
    court: Court, remote: ScriptedJudge
) -> None:
    remote.waits_for = asyncio.Event()
    assert await court.ask(remote.address, seconds=0.05) is None
    assert court.failures() == {"silent": 1}


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAUTHENTICATED]
)
async def test_a_judge_that_fails_leaves_the_pair_unjudged(
    court: Court, remote: ScriptedJudge, code: grpc.StatusCode
) -> None:
    remote.aborts_with = code
    assert await court.ask(remote.address) is None
    assert court.failures() == {"failed": 1}


async def test_a_judge_that_is_not_there_leaves_the_pair_unjudged(court: Court) -> None:
    assert await court.ask(f"127.0.0.1:{free_port()}") is None
    assert court.failures() == {"failed": 1}


@pytest.mark.parametrize(
    "said", [[], [1.0, 1.0], [1.0] * 4, [0.5, math.nan, 1.0], [0.5, -0.1, 1.0], [0.5, 1.1, 1.0]]
)
async def test_nonsense_leaves_the_pair_unjudged(
    court: Court, remote: ScriptedJudge, said: list[float]
) -> None:
    remote.say = lambda _: said
    assert await court.ask(remote.address) is None
    assert court.failures() == {"nonsense": 1}


async def test_too_many_at_once_are_left_unjudged_at_once(
    court: Court, remote: ScriptedJudge
) -> None:
    remote.waits_for = asyncio.Event()
    waiting = [asyncio.create_task(court.ask(remote.address)) for _ in range(MAX_AT_ONCE)]
    await until(lambda: len(remote.requests) == MAX_AT_ONCE)
    assert await court.ask(remote.address) is None
    assert court.failures() == {"busy": 1}
    remote.waits_for.set()
    assert await asyncio.gather(*waiting) == [[0.25, 0.75, 1.0]] * MAX_AT_ONCE
    assert await court.ask(remote.address) == [0.25, 0.75, 1.0]


async def test_a_judge_that_fails_again_and_again_is_left_alone_for_a_while(
    court: Court, remote: ScriptedJudge
) -> None:
    remote.aborts_with = grpc.StatusCode.INTERNAL
    for _ in range(FAILURES_IN_A_ROW + 2):
        assert await court.ask(remote.address) is None
    assert len(remote.requests) == FAILURES_IN_A_ROW
    assert court.failures() == {"failed": FAILURES_IN_A_ROW + 2}

    court.now += REST_SECONDS  # one try, which fails
    assert await court.ask(remote.address) is None
    assert await court.ask(remote.address) is None
    assert len(remote.requests) == FAILURES_IN_A_ROW + 1

    court.now += REST_SECONDS
    remote.aborts_with = None
    for _ in range(3):
        assert await court.ask(remote.address) == [0.25, 0.75, 1.0]


async def test_a_judge_that_was_left_alone_is_tried_over_a_connection_of_its_own(
    court: Court, remote: ScriptedJudge
) -> None:
    remote.aborts_with = grpc.StatusCode.UNAVAILABLE
    for _ in range(FAILURES_IN_A_ROW + 3):
        assert await court.ask(remote.address) is None
    assert court.opened == [remote.address]
    remote.aborts_with = None
    for _ in range(2):
        court.now += REST_SECONDS
        assert await court.ask(remote.address) == [0.25, 0.75, 1.0]
    assert court.opened == [remote.address] * 2


async def test_a_way_that_cannot_be_opened_anew_is_tried_again(
    court: Court, remote: ScriptedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.aborts_with = grpc.StatusCode.UNAVAILABLE
    for _ in range(FAILURES_IN_A_ROW):
        assert await court.ask(remote.address) is None
    remote.aborts_with = None
    court.now += REST_SECONDS
    with monkeypatch.context() as gone:
        gone.setattr(Peer, "_authority", lambda _: (Path("/nowhere/ca.pem")).read_bytes())
        assert await court.ask(remote.address) is None
    assert court.failures()["failed"] == FAILURES_IN_A_ROW + 1
    court.now += REST_SECONDS
    assert await court.ask(remote.address) == [0.25, 0.75, 1.0]


async def test_failures_with_successes_between_are_no_reason_to_stop(
    court: Court, remote: ScriptedJudge
) -> None:
    for turn in range(3 * FAILURES_IN_A_ROW):
        remote.aborts_with = grpc.StatusCode.INTERNAL if turn % 3 else None
        found = await court.ask(remote.address)
        assert (found is None) == bool(turn % 3)


async def test_who_waits_for_a_judge_can_be_cancelled(court: Court, remote: ScriptedJudge) -> None:
    remote.waits_for = asyncio.Event()
    waiting = asyncio.create_task(court.ask(remote.address))
    await until(lambda: remote.requests)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(remote.cancelled.wait(), PATIENCE)
    assert court.failures() == {}


async def test_closing_lets_go_of_who_waits(court: Court, remote: ScriptedJudge) -> None:
    remote.waits_for = asyncio.Event()
    waiting = asyncio.create_task(court.ask(remote.address))
    await until(lambda: remote.requests)
    await court.judges.close()
    assert await asyncio.wait_for(waiting, PATIENCE) is None


async def test_what_cannot_even_be_tried_is_counted_and_told_without_texts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = CollectorRegistry()

    def broken(address: str) -> Peer:
        raise OSError(f"no way to {address}")

    judges = Judges(Metrics(registry), broken)
    chat = judged(JudgeKind.MODEL, "nowhere:1")
    assert await judges.judge(chat, asked(), ANSWERS) is None
    labels = {"route": "chat", "why": "failed"}
    assert registry.get_sample_value("pennyweight_router_judge_failures_total", labels) == 1
    said = capsys.readouterr()
    assert "OSError" in said.out + said.err
    assert "five days" not in said.out + said.err


# --- judges that compare texts -------------------------------------------------------------------

LONG = " and then some" * INLINE_CHARACTERS


@pytest.mark.parametrize("rest", ["", LONG])
async def test_texts_are_compared_with_the_top_tiers_however_long(court: Court, rest: str) -> None:
    answers = [one + rest for one in ("In 5 days!", "never", "in 5 days")]
    found = await court.judges.judge(judged(JudgeKind.MATCH), asked(), answers)
    assert found == (1.0, 0.0, 1.0)
    found = await court.judges.judge(judged(JudgeKind.SIMILARITY), asked(), answers)
    assert found is not None
    assert found[0] == found[2] == 1.0
    assert 0.0 <= found[1] < 1.0
    strict = judged(JudgeKind.SIMILARITY, least_similarity=0.9999)
    assert await court.judges.judge(strict, asked(), answers) == (1.0, 0.0, 1.0)


async def test_the_form_that_was_asked_for_judges_every_tier(court: Court) -> None:
    chat = judged(JudgeKind.SCHEMA)
    numbers = asked((GuideKind.REGEX, "[0-9]+"))
    objects = asked((GuideKind.JSON_SCHEMA, '{"type": "object"}'))
    assert await court.judges.judge(chat, numbers, ["5", "five", "x"]) == (1.0, 0.0, 0.0)
    assert await court.judges.judge(chat, objects, ["{}", "5"]) == (1.0, 0.0)


@pytest.mark.parametrize("kind", [JudgeKind.SCHEMA, JudgeKind.OUTCOME])
async def test_what_cannot_be_judged_now_is_no_failure(court: Court, kind: JudgeKind) -> None:
    assert await court.judges.judge(judged(kind), asked(), ANSWERS) is None
    assert court.failures() == {}


async def test_a_route_that_says_nothing_of_judges_is_judged_by_match(court: Court) -> None:
    assert await court.judges.judge(route("chat"), asked(), ["a", "A."]) == (1.0, 1.0)


# --- the example ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preferred", "qualities"),
    [
        (lambda first, second: "same", [1.0, 1.0, 1.0]),
        (lambda first, second: "first" if first == "in 5 days" else "second", [0.0, 0.0, 1.0]),
        (lambda first, second: "first", [0.5, 0.5, 1.0]),
        (lambda first, second: "second" if "five" in second else "first", [0.5, 1.0, 1.0]),
    ],
)
async def test_the_example_asks_a_route_in_both_orders(
    court: Court, preferred: Callable[[str, str], str], qualities: list[float], tmp_path: Path
) -> None:
    def compare(request: router_pb2.CompleteRequest) -> list[router_pb2.CompleteResponse]:
        text = request.prompt.messages[0].content
        assert "When does my card arrive?" in text
        assert request.prompt.response_format.regex == "first|second|same"
        first, second = text.partition("[first] ")[2].split("\n\n[second] ")
        return [router_pb2.CompleteResponse(text=preferred(first, second), summary=summary())]

    router = ScriptedRouter(script=compare)
    server = serve(router, "127.0.0.1:0")
    address = f"127.0.0.1:{await server.start()}"
    log = tmp_path / "log"
    arguments = ("--listen", "127.0.0.1:0", "--router", address, "--route", "judge")
    try:
        with Process("examples.judge", *arguments, errors=log):
            await until(lambda: "judging at port" in log.read_text(), "the judge does not start")
            port = log.read_text().split()[-1]
            assert await court.ask(f"127.0.0.1:{port}") == qualities
    finally:
        await server.grpc.stop(0)
    assert {request.route for request in router.requests} == {"judge"}
    assert len(router.requests) == 4


async def test_the_example_fails_where_its_router_does(court: Court, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = (
        "--listen",
        "127.0.0.1:0",
        "--router",
        f"127.0.0.1:{free_port()}",
        "--route",
        "judge",
    )
    with Process("examples.judge", *arguments, errors=log):
        await until(lambda: "judging at port" in log.read_text(), "the judge does not start")
        assert await court.ask(f"127.0.0.1:{log.read_text().split()[-1]}", seconds=2.0) is None
    (why,) = court.failures()
    assert why in ("failed", "silent")
