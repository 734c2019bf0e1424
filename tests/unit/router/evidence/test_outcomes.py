"""What callers say of answers is checked, kept once, written, and told to the guardrail."""

import asyncio
import math
from collections.abc import Collection, Mapping
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from pennyweight.ledger.schema import OutcomeRecord
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import AlreadyExists, BadRequest, NotFound, Overloaded, Unavailable
from services.router.admission.long_work import LongWork
from services.router.evidence.handles import HandleSigner
from services.router.evidence.outcomes import INLINE_CHARACTERS, Outcomes, turns_at_the_state
from services.router.evidence.waiting import KEPT_SECONDS
from services.router.metrics import Metrics
from services.router.policy.calibration import Rung
from services.router.policy.long_prompts import Room
from services.router.policy.routes import EvidencePolicy, JudgeKind, Judging, Route
from services.router.routes.in_force import InForce
from tests.making.policies import compiled, ladder, quality, route

NOW = 1_800_000_000
SECRET = "the card will arrive on Monday"


class Shelf:
    """A `Keeper` in memory that can be away."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.seconds: set[float] = set()
        self.away_after = math.inf
        self.deaf = False
        self.asked = 0
        self.held: asyncio.Event | None = None

    async def keep_once(
        self, key: str, value: bytes, seconds: float, *, tenant: str
    ) -> bytes | None:
        await self._look()
        self.seconds.add(seconds)
        before = self.values.get(key)
        self.values.setdefault(key, value)
        if self.deaf:  # it is kept, and nobody hears of it
            raise Unavailable("the shared state did not answer")
        return before

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        await self._look()
        return self.values.get(key)

    async def _look(self) -> None:
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        self.away_after -= 1
        if self.away_after < 0:
            raise Unavailable("the shared state cannot be reached")


class Board:
    """A `LeverBoard` that notes the samples it gets."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, Mapping[str, float], float]] = []

    def halted(self, route: Route) -> Collection[str]:
        return ()

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        self.samples.append((route.name, losses, weight))


class Book:
    """A `Ledger` in memory."""

    def __init__(self) -> None:
        self.records: list[OutcomeRecord] = []

    def add(self, record: OutcomeRecord) -> None:
        self.records.append(record)


class Desk:
    """`Outcomes` and all around them."""

    def __init__(self) -> None:
        waiting = quality(
            Rung(1.0, -0.5), evidence=EvidencePolicy(judge=Judging(JudgeKind.OUTCOME))
        )
        rungs = ladder("small", "large")
        self.route = route("chat", *rungs, quality=waiting)
        self.signer = HandleSigner(b"a secret of this test")
        self.shelf, self.board, self.book = Shelf(), Board(), Book()
        self.registry = CollectorRegistry()
        self.now = float(NOW)
        self.digests = LongWork("digests", lambda: 0.0, Room())
        self.outcomes = Outcomes(
            in_force=InForce(
                compiled(
                    self.route,
                    route("matched", *rungs, quality=quality(Rung(1.0, -0.5))),
                    route("theirs", tenants=frozenset({"umbrella"})),
                )
            ),
            signer=self.signer,
            keeper=self.shelf,
            turns=turns_at_the_state(lambda: 0.0),
            digests=self.digests,
            ledger=self.book,
            levers=self.board,
            metrics=Metrics(self.registry),
            clock=lambda: 0.0,
            wall=lambda: self.now,
        )

    def handle(self, tenant: str = "acme", route: str = "chat", request_id: str = "r1") -> str:
        return self.signer.sign(request_id, tenant, route, NOW)

    async def tell(self, **said: Any) -> pb.RecordOutcomeResponse:
        fields: dict[str, Any] = {"route": "chat", "handle": self.handle()} | said
        return await self.outcomes.record(pb.RecordOutcomeRequest(**fields), "acme")

    def keep_pair(self, **changes: Any) -> None:
        """What the router keeps of a pair whose judge waits for its outcome."""
        pair = {
            "route": "chat",
            "calibration": "2026-11-01-abc",
            "answered": 0,
            "digests": [self.signer.digest("on monday"), self.signer.digest("on tuesday")],
            "weight": 0.25,
            "losses_of": {"tier:small": [1, 0]},
        }
        self.shelf.values["pair:r1"] = orjson.dumps(pair | changes)

    def count(self, kind: str) -> float:
        labels = {"route": "chat", "kind": kind}
        name = "pennyweight_router_outcomes_total"
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_outcome_is_written_without_its_text(desk: Desk) -> None:
    response = await desk.tell(resolved=False, rating=-0.5, corrected_answer=SECRET)
    assert response.request_id == "r1"
    (record,) = desk.book.records
    assert record == OutcomeRecord(
        time="2027-01-15T08:00:00.000Z",
        request_id="r1",
        tenant="acme",
        route="chat",
        resolved=False,
        rating=-0.5,
        corrected_digest=desk.signer.digest(SECRET),
    )
    assert not any(SECRET.encode() in value for value in desk.shelf.values.values())
    assert desk.shelf.seconds == {KEPT_SECONDS}
    kinds = ("resolved", "unresolved", "rated", "corrected")
    assert [desk.count(kind) for kind in kinds] == [0, 1, 1, 1]


async def test_what_was_not_said_is_absent(desk: Desk) -> None:
    await desk.tell(resolved=True)
    (record,) = desk.book.records
    assert (record.resolved, record.rating, record.corrected_digest) == (True, None, None)
    assert desk.count("resolved") == 1


async def test_saying_the_same_again_changes_nothing(desk: Desk) -> None:
    first = await desk.tell(rating=0.0, corrected_answer="On Monday.")
    again = await desk.tell(rating=0.0, corrected_answer="on monday")
    assert again == first
    assert len(desk.book.records) == 1
    assert desk.count("corrected") == 1


@pytest.mark.parametrize(
    "said", [{"resolved": False}, {"resolved": True, "rating": 0.0}, {"corrected_answer": "x"}]
)
async def test_saying_something_else_is_refused(desk: Desk, said: dict[str, Any]) -> None:
    await desk.tell(resolved=True)
    with pytest.raises(AlreadyExists) as refused:
        await desk.tell(**said)
    assert refused.value.reason == "OUTCOME_RECORDED"
    assert len(desk.book.records) == 1


# --- many at once ------------------------------------------------------------------------------


async def test_one_tenants_outcomes_are_bounded_and_hold_up_nobody_elses(desk: Desk) -> None:
    desk.shelf.held = asyncio.Event()
    crowd = [
        asyncio.create_task(desk.tell(handle=desk.handle(request_id=f"r{at}"), resolved=True))
        for at in range(300)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.shelf.asked == 16
    refused = [one.exception() for one in crowd if one.done()]
    assert len(refused) == 300 - 16 - 256
    assert {type(error) for error in refused} == {Overloaded}
    theirs = pb.RecordOutcomeRequest(
        route="chat", handle=desk.handle(tenant="globex", request_id="g1"), resolved=True
    )
    other = asyncio.create_task(desk.outcomes.record(theirs, "globex"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.shelf.asked == 17
    desk.shelf.held.set()
    assert (await other).request_id == "g1"
    await asyncio.gather(*crowd, return_exceptions=True)
    assert len(desk.book.records) == 16 + 256 + 1


async def test_a_pair_is_settled_in_its_tenants_turn(desk: Desk) -> None:
    desk.keep_pair()
    desk.shelf.values["outcome:r1"] = b"[false,null,null]"
    desk.shelf.held = asyncio.Event()
    crowd = [asyncio.create_task(desk.tell(resolved=False)) for _ in range(16)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    settling = asyncio.create_task(desk.outcomes.settle(desk.route, "r1", "acme"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.shelf.asked == 16
    desk.shelf.held.set()
    await asyncio.gather(settling, *crowd)
    assert len(desk.board.samples) == 1


async def test_long_corrections_are_digested_in_turns_of_tenants(desk: Desk) -> None:
    asked: list[tuple[str, str]] = []
    run = desk.digests.run

    async def noted(work: Any, size: int, **about: Any) -> Any:
        asked.append((about["tenant"], about["priority"].name))
        return await run(work, size, **about)

    desk.digests.run = noted  # type: ignore[method-assign]
    await desk.tell(corrected_answer="x" * INLINE_CHARACTERS)
    assert not asked
    await desk.tell(handle=desk.handle(request_id="r2"), corrected_answer="x" * 100_000)
    assert asked == [("acme", "BATCH")]


# --- refusals ----------------------------------------------------------------------------------


async def test_every_broken_rule_is_told_at_once(desk: Desk) -> None:
    with pytest.raises(BadRequest) as refused:
        await desk.tell(route="", handle="", rating=math.nan, corrected_answer="")
    broken = {one.name for one in refused.value.violations}
    assert broken == {"route", "handle", "rating", "corrected_answer"}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({}, "resolved"),
        ({"rating": 1.001}, "rating"),
        ({"rating": -math.inf}, "rating"),
        ({"corrected_answer": "x" * 100_001}, "corrected_answer"),
    ],
)
async def test_values_out_of_range_are_refused(desk: Desk, said: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await desk.tell(**said)
    assert [one.name for one in refused.value.violations] == [name]
    assert not desk.shelf.values


async def test_the_ends_of_the_ranges_are_taken(desk: Desk) -> None:
    await desk.tell(rating=-1.0, corrected_answer="x" * 100_000)
    assert len(desk.book.records) == 1


@pytest.mark.parametrize("name", ["unheard of", "theirs"])
async def test_a_route_that_the_tenant_has_not_is_unknown(desk: Desk, name: str) -> None:
    with pytest.raises(NotFound) as refused:
        await desk.tell(route=name, handle=desk.handle(route=name), resolved=True)
    assert refused.value.reason == "ROUTE_UNKNOWN"


async def test_every_handle_that_does_not_serve_is_refused_in_the_same_words(desk: Desk) -> None:
    handles = [
        "no handle",
        "..",
        "x" * 100_000,
        desk.handle()[:-1] + "!",
        desk.handle(tenant="umbrella"),
        desk.handle(route="matched"),
        desk.signer.sign("r1", "acme", "chat", NOW - int(KEPT_SECONDS) - 1),
        HandleSigner(b"another secret").sign("r1", "acme", "chat", NOW),
    ]
    refusals = set()
    for handle in handles:
        with pytest.raises(NotFound) as refused:
            await desk.tell(handle=handle, resolved=True)
        refusals.add((refused.value.message, refused.value.reason, refused.value.handle))
    assert len(refusals) == 1
    assert refusals.pop()[1:] == ("HANDLE_UNKNOWN", "")
    assert not desk.shelf.values


async def test_an_outcome_is_taken_for_thirty_days(desk: Desk) -> None:
    desk.now += KEPT_SECONDS
    await desk.tell(resolved=True)
    assert len(desk.book.records) == 1


# --- the shared state fails ----------------------------------------------------------------------


@pytest.mark.parametrize("operations", [0, 1])
async def test_while_the_shared_state_is_away_nothing_is_promised(
    desk: Desk, operations: int
) -> None:
    desk.shelf.away_after = operations
    with pytest.raises(Unavailable):
        await desk.tell(resolved=True)
    desk.shelf.away_after = math.inf
    await desk.tell(resolved=True)
    written = len(desk.book.records)
    assert written == 1 + operations  # twice at most; readers count the first
    await desk.tell(resolved=True)
    assert len(desk.book.records) == written


async def test_an_outcome_that_was_kept_unheard_is_written_by_the_next_try(desk: Desk) -> None:
    desk.shelf.deaf = True
    with pytest.raises(Unavailable):
        await desk.tell(resolved=True)
    assert not desk.book.records
    desk.shelf.deaf = False
    await desk.tell(resolved=True)
    assert len(desk.book.records) == 1


async def test_an_outcome_stands_even_if_the_guardrail_cannot_be_told(desk: Desk) -> None:
    desk.keep_pair()
    desk.shelf.away_after = 2
    await desk.tell(resolved=True)
    assert len(desk.book.records) == 1
    assert not desk.board.samples


# --- the guardrail -----------------------------------------------------------------------------


async def test_a_corrected_answer_judges_the_pair_that_waits_for_it(desk: Desk) -> None:
    desk.keep_pair()
    await desk.tell(corrected_answer="On Tuesday!")
    assert desk.board.samples == [("chat", {"tier:small": 1.0}, 0.25)]


@pytest.mark.parametrize(
    ("said", "loss"),
    [
        ({"corrected_answer": "on monday"}, -1.0),
        ({"corrected_answer": "never"}, 0.0),
        ({"resolved": True}, 0.0),
        ({"resolved": False}, 1.0),
        ({"rating": 0.5}, 0.25),
    ],
)
async def test_what_an_outcome_leaves_open_counts_against_the_lever(
    desk: Desk, said: dict[str, Any], loss: float
) -> None:
    desk.keep_pair()
    await desk.tell(**said)
    assert desk.board.samples == [("chat", {"tier:small": loss}, 0.25)]


async def test_a_pair_is_told_once(desk: Desk) -> None:
    desk.keep_pair()
    await desk.tell(resolved=False)
    await desk.tell(resolved=False)
    await desk.outcomes.settle(desk.route, "r1", "acme")
    assert len(desk.board.samples) == 1


async def test_an_outcome_that_comes_before_its_pair_judges_it_too(desk: Desk) -> None:
    await desk.tell(resolved=False)
    assert not desk.board.samples
    desk.keep_pair()
    await desk.outcomes.settle(desk.route, "r1", "acme")
    assert desk.board.samples == [("chat", {"tier:small": 1.0}, 0.25)]


async def test_a_pair_without_an_outcome_waits(desk: Desk) -> None:
    desk.keep_pair()
    await desk.outcomes.settle(desk.route, "r1", "acme")
    assert not desk.board.samples


async def test_levers_that_are_no_more_are_not_told_of(desk: Desk) -> None:
    desk.keep_pair(losses_of={"tier:medium": [1, 0], "tier:small": [1, 0]})
    await desk.tell(resolved=False)
    assert desk.board.samples == [("chat", {"tier:small": 1.0}, 0.25)]


async def test_a_pair_says_nothing_about_a_later_calibration(desk: Desk) -> None:
    desk.keep_pair(calibration="2026-10-01-abc")
    await desk.tell(resolved=False)
    assert not desk.board.samples


async def test_where_another_judges_no_outcome_is_waited_for(desk: Desk) -> None:
    desk.keep_pair(route="matched")
    await desk.tell(route="matched", handle=desk.handle(route="matched"), resolved=False)
    assert len(desk.book.records) == 1
    assert not desk.board.samples


@pytest.mark.parametrize(
    "changes",
    [
        {"route": "matched"},
        {"answered": 2},
        {"answered": -1},
        {"answered": "small"},
        {"digests": None},
        {"digests": [1, 2]},
        {"digests": []},
        {"weight": 0.0},
        {"weight": 2.0},
        {"weight": "much"},
        {"weight": None},
        {"losses_of": []},
        {"losses_of": {"tier:small": [1]}},
        {"losses_of": {"tier:small": [1, 2]}},
        {"losses_of": {"tier:small": [-1, 0]}},
        {"losses_of": {"tier:small": ["a", "b"]}},
        {"losses_of": {"tier:small": None}},
    ],
)
async def test_a_kept_pair_that_makes_no_sense_is_passed_over(
    desk: Desk, changes: dict[str, Any]
) -> None:
    desk.keep_pair(**changes)
    await desk.tell(resolved=False)
    assert len(desk.book.records) == 1
    assert not desk.board.samples


@pytest.mark.parametrize("kept", [b"", b"no JSON", b"[]", b"null", b"{}", b"7"])
async def test_a_kept_pair_that_is_none_is_passed_over(desk: Desk, kept: bytes) -> None:
    desk.shelf.values["pair:r1"] = kept
    await desk.tell(resolved=False)
    assert len(desk.book.records) == 1
    assert not desk.board.samples
