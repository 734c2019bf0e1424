"""What requests and judged pairs ask of levers: quick, safe, and never in the way."""

import asyncio

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import Unavailable
from services.router.levers import guardrail
from services.router.levers.board import SharedLeverBoard
from services.router.levers.copy import READ_EVERY, TRIES, UNKNOWN_SECONDS
from services.router.metrics import Metrics
from services.router.policy.calibration import Rung
from services.router.policy.lever_record import LeverRecord
from services.router.policy.lever_values import lever_record_of, values_of
from services.router.policy.routes import EvidencePolicy, JudgeKind, Judging, Route
from services.router.routes.in_force import InForce
from tests.making.memory_state import MemoryState
from tests.making.policies import compiled, ladder, quality, route

CHAT = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, None)))
SMALL = "tier:small"


class Board:
    """One router's levers."""

    def __init__(self, state: MemoryState, of: Route = CHAT) -> None:
        self.now = 1_700_000_000.0
        self.in_force = InForce(compiled(of))
        self.registry = CollectorRegistry()
        self.levers = SharedLeverBoard(
            state=state,
            in_force=self.in_force,
            metrics=Metrics(self.registry),
            clock=lambda: self.now,
            wall=lambda: self.now,
        )

    @property
    def halted(self) -> set[str]:
        return set(self.levers.halted(CHAT))

    def metric(self, name: str, **labels: str) -> float | None:
        shown = {"route": "chat", **labels} if labels else {}
        return self.registry.get_sample_value(f"pennyweight_router_{name}", shown)

    @property
    def samples(self) -> int:
        return next(one for one in self.levers.listed((CHAT,)) if one.name == SMALL).watch.samples


@pytest.fixture
def state() -> MemoryState:
    return MemoryState()


@pytest.fixture
async def one(state: MemoryState) -> Board:
    made = Board(state)
    await made.levers.refresh()
    return made


async def test_requests_ask_nothing_of_the_shared_state(state: MemoryState, one: Board) -> None:
    asked = state.asked
    for _ in range(100):
        assert one.halted == set()
    assert state.asked == asked


async def test_a_look_reads_everything_only_where_something_changed(
    state: MemoryState, one: Board
) -> None:
    before = state.asked
    for _ in range(READ_EVERY - 1):
        await one.levers.refresh()
    assert state.asked == before + READ_EVERY - 1
    await one.levers.refresh()
    assert state.asked == before + READ_EVERY + 1


async def test_a_halt_ends_for_requests_at_the_moment_it_expires(one: Board) -> None:
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why", seconds=1.0)
    one.now += 0.99
    assert one.halted == {SMALL}
    one.now += 0.02
    assert one.halted == set()


async def test_a_silence_is_borne_for_a_while(state: MemoryState, one: Board) -> None:
    state.away = True
    one.now += UNKNOWN_SECONDS
    await one.levers.refresh()
    assert one.halted == set()
    one.now += 0.1
    assert one.halted == {SMALL, "cache"}  # also when nobody looks any more


async def test_others_who_are_quicker_now_and_then_cost_nothing(
    state: MemoryState, one: Board
) -> None:
    other, left = Board(state), [3]
    await other.levers.refresh()

    def also() -> None:
        if left[0]:
            left[0] -= 1
            record = lever_record_of(orjson.loads(state.kept_records[f"chat/{SMALL}"]))
            halted = record.halt("bob", f"reason {left[0]}", other.now, 1.0)
            state.kept_records[f"chat/{SMALL}"] = orjson.dumps(values_of(halted))

    await other.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    state.before_swap = also
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    assert left == [0]
    assert one.halted == {SMALL}
    assert one.samples == 1  # the other's


async def test_others_who_are_always_quicker_are_given_way_to(
    state: MemoryState, one: Board
) -> None:
    times = []

    def always() -> None:
        times.append(None)
        halted = LeverRecord().halt("bob", str(len(times)), one.now, 0.0)  # over at once
        state.kept_records[f"chat/{SMALL}"] = orjson.dumps(values_of(halted))

    state.before_swap = always
    await one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert len(times) == TRIES + 1  # once for all levers together, which nobody else changes
    with pytest.raises(Unavailable):
        await one.levers.release(CHAT, SMALL, author="ann", reason="why")


# -- halts that cannot be written


async def test_a_halt_that_cannot_be_written_holds_here_and_says_so(
    state: MemoryState, one: Board
) -> None:
    state.refuses_writes = True
    seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    assert seen.standing.author == "ann"
    assert seen.unsaved
    assert one.halted == {SMALL}
    other = Board(state)
    await other.levers.refresh()
    assert other.halted == set()
    for _ in range(3):  # looks that find nothing new, and one that reads everything
        await one.levers.refresh()
        assert one.halted == {SMALL}
    assert one.metric("lever_unsaved") == 1
    with pytest.raises(Unavailable):
        await one.levers.release(CHAT, SMALL, author="ann", reason="was fine")
    assert one.halted == {SMALL}
    state.refuses_writes = False
    await one.levers.refresh()
    await other.levers.refresh()
    assert one.halted == other.halted == {SMALL}
    (seen, _) = one.levers.listed((CHAT,))
    assert not seen.unsaved
    assert one.metric("lever_unsaved") == 0


async def test_every_lever_that_could_not_be_written_is(state: MemoryState, one: Board) -> None:
    state.refuses_writes = True
    for lever in (SMALL, "cache"):
        await one.levers.halt(CHAT, lever, author="ann", reason="why", seconds=60.0)
    state.refuses_writes = False
    await one.levers.refresh()
    other = Board(state)
    await other.levers.refresh()
    assert other.halted == {SMALL, "cache"}


async def test_a_halt_holds_before_anybody_has_answered(state: MemoryState, one: Board) -> None:
    swap, slow = state.swap, asyncio.Event()

    async def waits(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        await slow.wait()
        return await swap(name, before, after)

    state.swap = waits  # type: ignore[method-assign]
    halt = asyncio.create_task(one.levers.halt(CHAT, SMALL, author="ann", reason="why"))
    await asyncio.sleep(0)
    assert one.halted == {SMALL}
    slow.set()
    assert not (await halt).unsaved


async def test_a_halt_is_kept_though_its_caller_has_gone(state: MemoryState, one: Board) -> None:
    swap = state.swap

    async def hangs(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        await asyncio.Event().wait()
        raise AssertionError

    state.swap = hangs  # type: ignore[method-assign]
    halt = asyncio.create_task(one.levers.halt(CHAT, SMALL, author="ann", reason="why"))
    await asyncio.sleep(0)
    halt.cancel()
    await asyncio.wait((halt,))
    state.swap = swap  # type: ignore[method-assign]
    await one.levers.refresh()
    other = Board(state)
    await other.levers.refresh()
    assert other.halted == {SMALL}


async def test_a_halt_wins_over_what_others_say_meanwhile(state: MemoryState, one: Board) -> None:
    """Also where their clocks are ahead."""

    def also() -> None:
        state.before_swap = lambda: None
        released = LeverRecord().release("bob", "was fine", one.now + 5.0)
        state.kept_records[f"chat/{SMALL}"] = orjson.dumps(values_of(released))

    state.before_swap = also
    seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    assert (seen.standing.halted, seen.unsaved) == (True, False)
    assert one.halted == {SMALL}


async def test_before_anything_is_known_a_halt_is_kept(state: MemoryState) -> None:
    state.away = True
    one = Board(state)
    seen = await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    assert seen.unsaved
    state.away = False
    await one.levers.refresh()
    other = Board(state)
    await other.levers.refresh()
    assert other.halted == {SMALL}


async def test_why_the_shared_state_refuses_is_told(state: MemoryState, one: Board) -> None:
    state.refusal = "its key holds a list"
    one.now += UNKNOWN_SECONDS + 0.1
    await one.levers.refresh()
    (seen, _) = one.levers.listed((CHAT,))
    assert not seen.known
    assert seen.standing.reason == "its key holds a list"
    state.refusal, state.away = "", True
    await one.levers.refresh()
    (seen, _) = one.levers.listed((CHAT,))
    assert seen.standing.reason == "the state that routers share cannot be reached"


async def test_samples_are_lost_while_nobody_can_take_them(state: MemoryState, one: Board) -> None:
    state.away = True
    await one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    asked = state.asked
    await one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert state.asked == asked  # nobody waits for what is known to be away
    state.away = False
    await one.levers.refresh()
    await one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)
    assert one.samples == 1


async def test_no_more_samples_wait_than_there_is_room_for(
    one: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardrail, "MAX_WAITING", 3)
    await asyncio.gather(*(one.levers.judged(CHAT, {SMALL: 0.0}, 1.0) for _ in range(10)))
    assert one.samples == 3


async def test_a_person_does_not_wait_behind_samples(state: MemoryState, one: Board) -> None:
    swap, slow, asked = state.swap, asyncio.Event(), asyncio.Event()

    async def waits(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        if asked.is_set():
            return await swap(name, before, after)
        asked.set()
        await slow.wait()
        return await swap(name, before, after)

    state.swap = waits  # type: ignore[method-assign]
    samples = [asyncio.create_task(one.levers.judged(CHAT, {SMALL: 0.0}, 1.0)) for _ in range(9)]
    await asked.wait()
    halt = one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    await asyncio.wait_for(halt, 5)
    assert one.halted == {SMALL}
    slow.set()
    await asyncio.gather(*samples)
    assert one.halted == {SMALL}


async def test_what_is_slow_to_be_written_holds_up_no_look(state: MemoryState, one: Board) -> None:
    state.refuses_writes = True
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why")
    state.refuses_writes = False
    looks, seen, slow, done = 0, asyncio.Event(), asyncio.Event(), state.swap

    async def waits(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        await slow.wait()
        return await done(name, before, after)

    async def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        one.now += seconds
        if looks == 20 or state.kept_records:
            seen.set()
        await asyncio.sleep(0)

    state.swap = waits  # type: ignore[method-assign]
    running = asyncio.create_task(one.levers.run(pause))
    await asyncio.wait_for(seen.wait(), 5)
    assert looks * 0.25 > UNKNOWN_SECONDS
    assert one.halted == {SMALL}  # and not every lever
    assert not state.kept_records
    seen.clear()
    slow.set()
    await asyncio.wait_for(seen.wait(), 5)
    assert list(state.kept_records) == ["chat/tier:small"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_settling_that_fails_ends_the_run_which_begins_anew(
    state: MemoryState, one: Board
) -> None:
    state.refuses_writes = True
    await one.levers.halt(CHAT, SMALL, author="ann", reason="why")

    async def fails(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        raise RuntimeError("never should")

    async def pause(seconds: float) -> None:
        await asyncio.sleep(0)

    state.swap = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="never should"):
        await asyncio.wait_for(one.levers.run(pause), 5)


async def test_only_levers_of_the_route_are_judged(state: MemoryState, one: Board) -> None:
    await one.levers.judged(CHAT, {"tier:large": 1.0, "trimming": 1.0}, 1.0)
    assert state.kept_records == {}


async def test_what_is_on_the_way_keeps_the_levers_of_its_own_policy(one: Board) -> None:
    """A request may come with a route that is no longer in force, or not yet."""
    other = route("chat", *ladder("tiny", "small", "large"), quality=quality(Rung(1.0, None)))
    await one.levers.halt(other, "tier:tiny", author="ann", reason="why")
    assert set(one.levers.halted(other)) == {"tier:tiny"}
    assert one.halted == set()


# -- all levers of a route together

THREE = route(
    "chat",
    *ladder("tiny", "small", "large"),
    quality=quality(
        Rung(1.0, None),
        Rung(1.0, None),
        run_length=1000.0,
        evidence=EvidencePolicy(judge=Judging(JudgeKind.MODEL)),
    ),
)
TOTAL = "total"


async def share_the_loss(*boards: Board, pairs: int = 600) -> None:
    """Each tier loses 1.8 points where 2 are allowed, both together 3.6."""
    for number in range(pairs):
        lost = {3: "tier:tiny", 27: "tier:small"}.get(number % 55, "")
        losses = {lever: float(lever == lost) for lever in ("tier:tiny", "tier:small")}
        await boards[number % len(boards)].levers.judged(THREE, losses, 1.0)


@pytest.fixture
async def three(state: MemoryState) -> Board:
    made = Board(state, THREE)
    await made.levers.refresh()
    return made


async def test_two_levers_may_not_each_lose_all_that_is_allowed(
    state: MemoryState, three: Board
) -> None:
    await share_the_loss(three)
    halted = set(three.levers.halted(THREE))
    assert len(halted) == 1
    (lever,) = (one for one in three.levers.listed((THREE,)) if one.name in halted)
    assert lever.standing.author == "guardrail"
    assert "the levers of the route together" in lever.standing.reason
    assert lever.watch.evidence < 1000  # alone it would have stayed
    other = Board(state, THREE)
    await other.levers.refresh()
    assert set(other.levers.halted(THREE)) == halted
    (total,) = three.levers.totals((THREE,))
    assert total.watch.samples < 600  # it watches those that are left
    assert not total.watch.halted


async def test_the_loss_of_all_levers_is_shown(three: Board) -> None:
    for _ in range(3):
        await three.levers.judged(THREE, {"tier:tiny": -0.5, "tier:small": 0.25}, 1.0)
    (total,) = three.levers.totals((THREE,))
    assert (total.watch.samples, total.watch.mean_loss) == (3, pytest.approx(-0.25))
    assert total.guard.allowed == pytest.approx(0.02)
    evidence = total.watch.evidence / 1000
    assert three.metric("guard_evidence", lever=TOTAL) == pytest.approx(evidence)
    three.in_force.adopt(compiled(route("other")))
    await three.levers.refresh()
    assert three.metric("guard_evidence", lever=TOTAL) is None


async def test_who_is_to_blame_is_halted_by_whoever_sees_it_first(
    state: MemoryState, three: Board
) -> None:
    """As when the router that found it ends before it has halted anything."""
    swap, lost = state.swap, "chat/tier:"

    async def ends(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        if name.startswith(lost) and b"together" in after:
            raise RuntimeError("ended")
        return await swap(name, before, after)

    state.swap = ends  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="ended"):
        await share_the_loss(three)
    state.swap = swap  # type: ignore[method-assign]
    other = Board(state, THREE)
    await other.levers.refresh()
    assert len(other.levers.halted(THREE)) == 1


async def test_a_release_of_who_was_to_blame_stands(state: MemoryState, three: Board) -> None:
    await share_the_loss(three)
    (name,) = three.levers.halted(THREE)
    await three.levers.release(THREE, name, author="ann", reason="was fine")
    other = Board(state, THREE)
    for each in (three, other):
        await each.levers.refresh()
        assert not each.levers.halted(THREE)
    await three.levers.judged(THREE, {"tier:tiny": 0.0, "tier:small": 0.0}, 1.0)
    (total,) = three.levers.totals((THREE,))
    assert total.watch.samples == 1


async def test_who_is_to_blame_is_halted_here_while_the_shared_state_is_away(
    state: MemoryState, three: Board
) -> None:
    swap = state.swap

    async def goes(name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        state.away = state.away or b'"blamed":"tier' in after
        return await swap(name, before, after)

    state.swap = goes  # type: ignore[method-assign]
    await share_the_loss(three)
    assert state.away
    assert len(three.levers.halted(THREE)) == 1
    state.swap, state.away = swap, False  # type: ignore[method-assign]
    await three.levers.refresh()
    other = Board(state, THREE)
    await other.levers.refresh()
    assert other.levers.halted(THREE) == three.levers.halted(THREE)
    assert b'"blamed":"tier' in state.kept_records[f"chat/{TOTAL}"]
