"""Requests that cost replicas: ended after the second, refused for a while, and theirs alone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import ServiceError
from services.router.fleet.replica import Replica, State
from services.router.policy.calibration import Rung
from services.router.policy.poison import MARK_SECONDS
from services.router.policy.routes import Route
from services.router.ports import Finish, Piece, ReplicaFailed, Written
from services.router.request.attempt import Attempt
from services.router.request.company import Company
from services.router.request.context import RequestState
from services.router.request.trouble import Poisonous
from tests.making.policies import ladder, quality, route
from tests.making.walking import Cache, Engine, Listener, Run, Way

SURE = -0.125


class Hung(Run):
    """Says nothing for as long as anybody waits."""

    def __init__(self) -> None:
        super().__init__([""])
        self.way: Way

    async def read(self, timeout_seconds: float) -> Piece:
        await asyncio.sleep(0)
        self.way.now += timeout_seconds
        raise ReplicaFailed("silent", lost=True, silent=True)


def died() -> Run:
    return Run([ReplicaFailed("Socket closed", lost=True, died=True)])


def scene(
    *runs: Run, of: Route | None = None, cache: Cache | None = None, **tiers: list[Run]
) -> Way:
    """A request on a route whose lowest tier has three replicas."""
    engine = Engine({"small": list(runs)} | tiers)
    way = Way(of or route("chat", *ladder("small")), engine, cache=cache or Cache(lease=""))
    first = way.replicas[0]
    way.fleet.update(
        [
            Replica(name, "small", first.model, first.precision, "b:1", State.READY, 8)
            for name in ("small-2", "small-3")
        ]
    )
    for run in runs:
        if isinstance(run, Hung):
            run.way = way
    return way


async def go(way: Way) -> str:
    """Asks; returns the reason of the error, empty for an answer."""
    way.state = way.begin()
    try:
        await way.go()
    except ServiceError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("kind", [Hung, died])
async def test_what_cost_two_replicas_is_not_carried_to_the_third(
    kind: Callable[[], Run],
) -> None:
    way = scene(kind(), kind(), Run(["hi"]), Run(["hi"]))
    with pytest.raises(Poisonous) as raised:
        await way.go()
    assert (raised.value.reason, raised.value.code.name) == ("REPLICAS_LOST", "INTERNAL")
    assert len(way.engine.started) == 2
    way.state = way.begin()
    way.now += 10.0
    with pytest.raises(Poisonous) as refused:
        await way.go()
    assert refused.value.retry_after_seconds == MARK_SECONDS - 10.0
    assert (len(way.engine.started), way.state.micro_usd) == (2, 0)
    assert way.metrics.poisonous._value.get() == 2
    way.now += MARK_SECONDS
    assert await go(way) == ""


async def test_others_are_answered_meanwhile() -> None:
    way = scene(died(), died(), *[Run(["hi"]) for _ in range(2)])
    await go(way)
    other = pb.GenerateRequest(route="chat")
    other.prompt.messages.add(role=pb.ROLE_USER, content="something else")
    for state in (way.begin(other), replace_tenant(way, "umbrella")):
        listener = Listener()
        await way.answer(listener, state)
        assert listener.events == ["started", "hi"]


def replace_tenant(way: Way, tenant: str, asked: pb.GenerateRequest | None = None) -> RequestState:
    state = way.begin(asked) if asked else way.begin()
    state.context = replace(state.context, tenant=tenant)
    return state


async def test_a_caller_who_asks_again_takes_its_losses_along() -> None:
    way = scene(*[Run(["one", ReplicaFailed("reset", lost=True, died=True)]) for _ in range(2)])
    # Each ends in the middle of the answer, where nothing is tried again.
    assert [await go(way) for _ in range(3)] == ["REPLICA_LOST", "REPLICA_LOST", "REPLICAS_LOST"]
    assert len(way.engine.started) == 2


async def test_hanging_up_does_not_clear_a_request_over_which_replicas_fall_silent() -> None:
    runs = [Run(["hi"]), Run(["hi"]), Run(["hi"])]

    async def silent(timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    for run in runs:
        run.read = silent  # type: ignore[method-assign]
    way = scene(*runs)
    way.load.add("small", way.now, first_text=0.5, decode_seconds=0.0, tokens=9)
    for _ in range(2):
        way.state = way.begin()
        asking = asyncio.create_task(way.answer(Listener()))
        started = len(way.engine.started)
        while len(way.engine.started) == started:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        way.now += 3.0
        asking.cancel()
        await asyncio.wait((asking,))
        await way.rest()
    assert await go(way) == "REPLICAS_LOST"


@pytest.mark.parametrize(
    "failure",
    [
        ReplicaFailed("failed to connect", lost=True, refused=True),
        ReplicaFailed("the replica is gone", lost=True),
        ReplicaFailed("no room", lost=False),
    ],
    ids=str,
)
async def test_replicas_that_were_away_or_full_are_no_losses(failure: ReplicaFailed) -> None:
    way = scene(Run([failure]), Run([failure]), Run([failure]), Run(["hi"]))
    assert await go(way) == ""
    assert len(way.runner.trouble.marks) == 0


async def test_a_replica_in_trouble_before_is_no_loss() -> None:
    way = scene(died(), died(), died(), Run(["hi"]))
    for name in way.fleet._known.values():
        way.fleet.failed(name)
    assert await go(way) == ""
    assert len(way.runner.trouble.marks) == 0


async def test_poison_is_not_moved_to_a_dearer_tier() -> None:
    told = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))
    way = scene(died(), died(), of=told, large=[Run(["large"], SURE)])
    assert await go(way) == "REPLICAS_LOST"
    assert way.engine.order == ["small", "small"]


async def test_losses_of_different_tiers_add_up() -> None:
    told = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))
    way = scene(Hung(), of=told, large=[died(), Run(["large"], SURE)])
    gone = [replace(one, state=State.GONE) for one in way.fleet._known.values() if one.id[5:]]
    way.fleet.update([one for one in gone if one.tier == "small"])
    assert await go(way) == "REPLICAS_LOST"
    assert way.engine.order == ["small", "large"]


async def test_a_stored_answer_still_serves() -> None:
    way = scene(died(), died())
    await go(way)
    way.cache.answer = Written((("hi", 2),), Finish.STOP, 2, 2, "small", "small", "int8", "version")
    assert await go(way) == ""


async def both(way: Way, tenant: str, *, victims_form: bool) -> list[str]:
    """A victim of a tenant and a request of acme with a form run side by side; their reasons."""
    told = [pb.GenerateRequest(route="chat") for _ in range(2)]
    for number, (request, guided) in enumerate(zip(told, (victims_form, True), strict=True)):
        request.prompt.messages.add(role=pb.ROLE_USER, content=f"question {number}")
        if guided:
            request.prompt.response_format.regex = "(qz)+"
    victim, attacker = map(way.begin, told)
    victim.context = replace(victim.context, tenant=tenant)

    async def reason(state: RequestState) -> str:
        try:
            await way.answer(Listener(), state)
        except ServiceError as error:
            return error.reason
        return ""

    return list(await asyncio.gather(reason(victim), reason(attacker)))


def moved(way: Way, new: str) -> None:
    """One replica in the place of the others."""
    first = way.replicas[0]
    gone = [replace(one, state=State.GONE) for one in way.fleet._known.values() if one.id != new]
    way.fleet.update(
        [*gone, Replica(new, "small", first.model, first.precision, "c:1", State.READY, 8)]
    )


async def twice(way: Way, tenant: str, *, victims_form: bool) -> list[str]:
    """Both run on one replica, then on another, and each is lost over them."""
    moved(way, "small-8")
    assert await both(way, tenant, victims_form=victims_form) == ["", ""]
    moved(way, "small-9")
    return await both(way, tenant, victims_form=victims_form)


async def test_what_ran_beside_a_form_is_not_blamed_for_what_the_form_did() -> None:
    hi = [Run(["hi"]) for _ in range(3)]
    way = scene(died(), died(), *hi[:2], died(), died(), hi[2])
    assert await twice(way, "umbrella", victims_form=False) == ["", "REPLICAS_LOST"]
    assert len(way.runner.trouble.marks) == 1


async def test_two_suspects_of_two_tenants_are_not_marked_where_they_were_together() -> None:
    hi = [Run(["hi"]) for _ in range(4)]
    way = scene(died(), died(), *hi[:2], died(), died(), *hi[2:])
    assert await twice(way, "umbrella", victims_form=True) == ["", ""]
    assert len(way.runner.trouble.marks) == 2


async def test_one_tenant_that_costs_many_replicas_marks_nothing_of_another() -> None:
    times = 6
    way = scene(*[run for _ in range(times) for run in (died(), died(), Run(["hi"]), Run(["hi"]))])
    for number in range(times):
        moved(way, f"small-{number + 8}")
        assert await both(way, "umbrella", victims_form=True) == ["", ""]


class Guests:
    """Attempts on one replica: of a tenant with a form, or without, and a victim of another."""

    def __init__(self, *, victims_form: bool = True) -> None:
        self.way = scene()
        self.company = Company()
        self.victim = self.asks("umbrella", form=victims_form)

    def asks(self, tenant: str, *, form: bool) -> RequestState:
        asked = pb.GenerateRequest(route="chat")
        asked.prompt.messages.add(role=pb.ROLE_USER, content="x")
        if form:
            asked.prompt.response_format.regex = "(qz)+"
        return replace_tenant(self.way, tenant, asked)

    def join(self, state: RequestState, began: float) -> Attempt:
        nothing: Any = None
        there: Any = SimpleNamespace(replica=self.way.replicas[0])
        attempt = Attempt(nothing, nothing, there, began)
        self.company.joined(state, attempt)
        return attempt

    def passing(self, state: RequestState, began: float, left: float) -> None:
        self.company.left(self.join(state, began), left)

    def suspects(self, attempt: Attempt) -> set[str]:
        return set(self.company.suspects(self.victim, attempt))


async def test_who_floods_a_replica_does_not_clear_the_form_it_left_there() -> None:
    """Whoever was there when the replica hung stays a suspect, whatever it asks afterwards."""
    guests = Guests()
    theirs = guests.join(guests.victim, 1.0)
    guests.passing(guests.asks("acme", form=True), 1.0, 2.0)
    for _ in range(1000):
        guests.passing(guests.asks("acme", form=False), 2.0, 3.0)
    assert guests.suspects(theirs) == {"umbrella", "acme"}


@pytest.mark.parametrize(
    ("victims_form", "suspects"), [(True, {"umbrella", "acme"}), (False, set())]
)
async def test_who_leaves_before_others_come_stays_a_suspect_until_the_replica_speaks(
    *, victims_form: bool, suspects: set[str]
) -> None:
    guests = Guests(victims_form=victims_form)
    guests.passing(guests.asks("acme", form=True), 10.0, 15.0)
    theirs = guests.join(guests.victim, 16.0)
    assert guests.suspects(theirs) == suspects
    late = guests.join(guests.victim, 15.0 + MARK_SECONDS + 1.0)
    guests.company.left(theirs, 17.0)
    assert guests.suspects(late) == {"umbrella"}


@pytest.mark.parametrize("ended", [False, True])
async def test_what_was_left_before_the_replica_spoke_is_no_suspect(*, ended: bool) -> None:
    guests = Guests()
    guests.passing(guests.asks("acme", form=True), 10.0, 15.0)
    other = guests.join(guests.asks("third", form=False), 15.0)
    other.heard_at = 15.5
    if ended:
        guests.company.left(other, 15.5)
    assert guests.suspects(guests.join(guests.victim, 16.0)) == {"umbrella"}


async def test_a_tenant_does_not_clear_its_form_by_another_of_its_own() -> None:
    hi = [Run(["hi"]) for _ in range(2)]
    way = scene(died(), died(), *hi, died(), died())
    assert await twice(way, "acme", victims_form=True) == ["REPLICAS_LOST"] * 2
