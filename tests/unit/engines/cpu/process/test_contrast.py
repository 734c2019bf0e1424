"""What sources are held for, in histories of who was there."""

import pytest

from engines.cpu.process.contrast import Contrast

MAY = 1000
"""What the guides of a step may take."""


class Scene:
    """Steps in which sources, each a letter, are there."""

    def __init__(self) -> None:
        self.contrast = Contrast(MAY)

    def steps(self, ns: int, sources: str, times: int = 1) -> None:
        for _ in range(times):
            self.contrast.learn(ns, set(sources))

    def split(self, ns: int, sources: str) -> dict[str, int]:
        parts = self.contrast.split(ns, dict.fromkeys(sources, 1.0))
        assert sum(parts.values()) == pytest.approx(ns)
        return {source: round(part / MAY) for source, part in parts.items()}


def test_what_nothing_is_known_of_is_split_by_the_guesses() -> None:
    parts = Contrast(MAY).split(16 * MAY, {"a": 1, "b": 3})
    assert parts["b"] == pytest.approx(3 * parts["a"], rel=0.05)


def test_sources_that_are_always_there_together_are_held_for_the_same() -> None:
    scene = Scene()
    for ns in (20, 5, 40, 0, 30) * 100:
        scene.steps(ns * MAY, "ab")
    assert scene.split(20 * MAY, "ab") == {"a": 10, "b": 10}
    assert scene.contrast.apart("ab") is None


def test_a_guess_holds_only_for_what_is_not_explained() -> None:
    scene = Scene()
    scene.steps(20 * MAY, "ab", 100)
    parts = scene.contrast.split(20 * MAY, {"a": 1, "b": 9})
    assert parts["b"] < 1.1 * parts["a"]


@pytest.mark.parametrize("others", ["b", "bc"])
def test_whoever_was_away_when_a_step_took_nothing_is_told_apart_soon(others: str) -> None:
    scene = Scene()
    for _ in range(3):
        scene.steps(20 * MAY, "a" + others, 50)
        scene.steps(0, others)
    assert scene.split(20 * MAY, "a" + others)["a"] >= 16
    assert scene.contrast.apart("a" + others) == "a"


def test_whoever_is_left_when_a_step_takes_as_much_is_told_apart_soon() -> None:
    scene = Scene()
    for _ in range(3):
        scene.steps(20 * MAY, "ab", 50)
        scene.steps(20 * MAY, "a")
    assert scene.contrast.apart("ab") == "a"


def test_what_is_told_holds_through_cheap_steps_and_dear_ones_without_contrast() -> None:
    scene = Scene()
    for _ in range(4):
        scene.steps(20 * MAY, "ab", 50)
        scene.steps(0, "b")
    scene.steps(0, "ab", 500)
    scene.steps(30 * MAY, "ab", 500)
    assert scene.contrast.apart("ab") == "a"


def test_cheap_steps_of_its_own_before_make_nobody_less_suspect() -> None:
    scene = Scene()
    scene.steps(0, "a", 1000)
    scene.steps(20 * MAY, "ab", 50)
    assert scene.split(20 * MAY, "ab") == {"a": 10, "b": 10}


def test_cheap_steps_of_its_own_long_after_a_dear_one_tell_little() -> None:
    scene = Scene()
    scene.steps(20 * MAY, "ab", 50)
    scene.steps(0, "", 10)
    before = scene.split(20 * MAY, "ab")["a"]
    scene.steps(0, "a", 3)
    assert scene.split(20 * MAY, "ab")["a"] >= before - 2


def test_what_a_source_takes_alone_is_measured() -> None:
    scene = Scene()
    scene.steps(20 * MAY, "a", 60)
    assert scene.split(20 * MAY, "ab") == {"a": 20, "b": 0}
    scene.steps(0, "a", 200)
    assert scene.split(20 * MAY, "ab") == {"a": 10, "b": 10}


def test_nobody_is_told_apart_who_is_alone_or_takes_what_it_may() -> None:
    scene = Scene()
    scene.steps(MAY, "a", 100)
    assert scene.contrast.apart("ab") is None
    scene.steps(20 * MAY, "a", 100)
    assert scene.contrast.apart("a") is None
    assert scene.contrast.apart("ab") == "a"


def test_only_the_latest_sources_are_kept() -> None:
    contrast = Contrast(MAY)
    for number in range(2000):
        contrast.learn(20 * MAY, {str(number)})
    assert len(contrast) <= 256
    assert contrast.apart({"0", "1999"}) == "1999"
    assert contrast.apart({"0", "1"}) is None
