"""A place that is left before its call is final: the call is ended as its tier wants."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from services.router.fleet.place import Place
from services.router.fleet.replica import Replica, State
from services.router.policy.routes import Cancel, Tier
from services.router.ports import EngineRequest, Piece, ReplicaFailed
from tests.making.policies import tier
from tests.making.walking import Engine, Run

each_way = pytest.mark.parametrize("cancel", Cancel)


class Silent(Run):
    """Says nothing more, and does not hear that it is to stop."""

    async def read(self, timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        await asyncio.Event().wait()


class Failing(Run):
    """Turns out to be lost when it is spoken to."""

    async def read(self, timeout_seconds: float) -> Piece:
        raise ReplicaFailed("gone", lost=True)

    async def stop(self) -> None:
        raise ReplicaFailed("gone", lost=True)


class Ready(Engine):
    """Starts one run, whatever is asked."""

    def __init__(self, run: Run) -> None:
        super().__init__({})
        self.run = run

    def start(self, address: str, request: EngineRequest) -> Run:
        return self.run


class Scene:
    """A run on a replica, and the place that it has there."""

    def __init__(self, run: Run, cancel: Cancel) -> None:
        small: Tier = tier("small", cancel=cancel)
        self.replica = Replica("a", "small", "m", "int8", "a:1", State.READY, 8, in_flight=1)
        self.ending: list[asyncio.Task[None]] = []
        self.ended = 0
        self.place = Place(self.replica, small, self.give_back, self.spawn)
        self.place.start(
            Ready(run),
            cast("EngineRequest", None),
            patience=lambda: 7.0,
            ended=self.note_end,
        )

    def give_back(self, replica: Replica) -> None:
        replica.in_flight -= 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.ending.append(asyncio.create_task(work))

    def note_end(self) -> None:
        self.ended += 1

    @property
    def is_over(self) -> bool:
        return (self.replica.in_flight, self.replica.calls, self.ended) == (0, set(), 1)


@each_way
async def test_an_end_that_is_cut_off_cancels_the_call(cancel: Cancel) -> None:
    run = Silent(["never"])
    scene = Scene(run, cancel)
    scene.place.give_back()
    (ending,) = scene.ending
    await asyncio.sleep(0)
    assert (scene.is_over, run.cancelled) == (False, False)  # its room is taken until it has ended
    ending.cancel()
    await asyncio.wait((ending,))
    assert (scene.is_over, run.cancelled, ending.cancelled()) == (True, True, True)


@each_way
async def test_an_end_that_fails_cancels_the_call(cancel: Cancel) -> None:
    run = Failing(["never"])
    scene = Scene(run, cancel)
    scene.place.give_back()
    await asyncio.gather(*scene.ending)
    assert (scene.is_over, run.cancelled) == (True, True)


@each_way
async def test_an_attempt_that_failed_is_cancelled_at_once(cancel: Cancel) -> None:
    run = Silent(["never"])
    scene = Scene(run, cancel)
    scene.place.give_back(ReplicaFailed("silent", lost=True))
    assert (scene.is_over, run.cancelled, scene.ending) == (True, True, [])


@each_way
async def test_a_call_that_is_final_is_finished(cancel: Cancel) -> None:
    run = Run(["all of it"])
    scene = Scene(run, cancel)
    run.final = True
    scene.place.give_back()
    assert (scene.is_over, run.finished, run.cancelled, scene.ending) == (True, True, False, [])


@pytest.mark.parametrize(("cancel", "read"), [(Cancel.ABORT, False), (Cancel.DRAIN, True)])
async def test_a_run_that_is_left_is_stopped_or_read_to_its_end(
    cancel: Cancel, *, read: bool
) -> None:
    run = Run(["one", "two"])
    scene = Scene(run, cancel)
    scene.place.give_back()
    await asyncio.gather(*scene.ending)
    assert (scene.is_over, run.finished, run.cancelled) == (True, read, not read)


@each_way
async def test_the_room_is_free_when_the_replica_is_done_whoever_still_holds_the_place(
    cancel: Cancel,
) -> None:
    run = Run(["all of it"])
    scene = Scene(run, cancel)
    scene.place.release()
    assert scene.replica.in_flight == 1  # it is at work
    run.final = True
    scene.place.release()
    assert (scene.is_over, run.finished) == (True, True)
    other = scene.place.moved()
    for place in (scene.place, other):
        place.release()
        place.give_back()
    assert scene.is_over  # it is given back once
