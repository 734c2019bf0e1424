"""Who stands still is found out, and nobody else is."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from services.common.self_watch import MOST_SILENT, SelfWatch


class Scene:
    """A watch, and what an answer to it is."""

    def __init__(self) -> None:
        self.answer: BaseException | None = None
        self.told: list[str] = []
        self.ended = 0
        self.watch = SelfWatch(
            self.ask,
            self.told.append,
            end=lambda: self.told.append("ended"),
            ended=lambda: self.ended,
        )

    async def ask(self) -> None:
        if self.answer is not None:
            raise self.answer

    def looks(self, *between: Callable[[], None]) -> bool:
        """What it finds when these happen between its looks, and nothing after them."""
        happens: Iterator[Callable[[], None]] = iter(between)

        def wait(_: float) -> bool:
            if (one := next(happens, None)) is None:
                return True
            one()
            return False

        return self.watch.look(wait)

    def answered(self) -> None:
        asyncio.run(self.watch.ask_once())


def nothing() -> None:
    """No answer comes."""


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_silence_over_several_looks_is_found(scene: Scene) -> None:
    assert scene.looks(*[nothing] * MOST_SILENT)


def test_calls_of_others_that_end_are_a_sign_of_life(scene: Scene) -> None:
    def other() -> None:
        scene.ended += 1

    assert not scene.looks(*[nothing, nothing, other] * MOST_SILENT)


def test_one_answer_in_time_is_enough(scene: Scene) -> None:
    almost = [nothing] * (MOST_SILENT - 1)
    assert not scene.looks(*almost, scene.answered, *almost, scene.answered, *almost)


@pytest.mark.parametrize("answer", [OSError("no descriptor"), ConnectionResetError(), EOFError()])
def test_a_refusal_is_an_answer(scene: Scene, answer: Exception) -> None:
    scene.answer = answer
    assert not scene.looks(*[scene.answered] * 10)


@pytest.mark.parametrize("answer", [TimeoutError(), ConnectionRefusedError()])
def test_silence_and_a_closed_door_are_none(scene: Scene, answer: Exception) -> None:
    scene.answer = answer
    assert scene.looks(*[scene.answered] * MOST_SILENT)
