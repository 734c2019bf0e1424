"""Which guide is blamed for slow steps, in histories of who was there."""

from collections.abc import Iterable

import pytest

from engines.cpu.process.watch import Blame, Following, Watch
from engines.cpu.suspicion import DOUBT_SECONDS, Suspect

SLOW = 1000
FAST = 10


class Scene:
    """Answers that go on a token a step; `took` and `rest` are the engine's steps."""

    def __init__(self) -> None:
        self.watch = Watch(SLOW)
        self.lengths: dict[int, int] = {}
        self.guides: dict[int, bytes] = {}
        self.sources: dict[int, str] = {}
        self.key = 0
        self.now = 0.0

    def begin(self, guide: str, length: int = 0, source: str = "") -> int:
        self.key += 1
        self.lengths[self.key] = length
        self.guides[self.key] = guide.encode()
        self.sources[self.key] = source
        return self.key

    def end(self, *keys: int) -> None:
        for key in keys:
            del self.lengths[key]

    def step(self, ns: int, times: int = 1) -> list[Blame]:
        found: list[Blame] = []
        for _ in range(times):
            if not self.lengths:
                found += self.watch.rest(self.now)
                continue
            following = [
                Following(key, self.guides[key], at, self.sources[key])
                for key, at in self.lengths.items()
            ]
            found += self.watch.took(ns, following, self.now)
            for key in self.lengths:
                self.lengths[key] += 1
        return found

    def doubted(self, guide: str, source: str = "") -> bool:
        return self.watch.suspicion.doubted(Suspect(source, guide.encode()), self.now)

    def answer(self, guide: str, tokens: int, beside: Iterable[int] = ()) -> None:
        """A whole answer, in fast steps."""
        key = self.begin(guide)
        assert self.step(FAST, tokens) == []
        self.end(key, *beside)


def sure(guide: str) -> Blame:
    return Blame(guide.encode(), certain=True)


def unsure(guide: str) -> Blame:
    return Blame(guide.encode(), certain=False)


def test_one_guide_alone_is_certainly_to_blame() -> None:
    scene = Scene()
    scene.begin("a")
    assert scene.step(FAST, 9) == []
    assert scene.step(3 * SLOW) == []
    assert scene.step(3 * SLOW) == [sure("a")]


def test_a_guide_that_is_further_than_ever_is_blamed_first_and_kept_out_the_second_time() -> None:
    scene = Scene()
    scene.answer("good", 100)
    for doubted in (False, True):
        good = scene.begin("good")
        bad = scene.begin("bad")
        assert scene.step(FAST, 50) == []
        newer = scene.begin("good")
        assert scene.step(9 * SLOW, 2) == [unsure("bad")]
        assert (scene.doubted("bad"), scene.doubted("good")) == (doubted, False)
        scene.end(bad)
        assert scene.step(FAST, 40) == []
        scene.end(good, newer)
        assert scene.step(FAST) == []
    scene.now = DOUBT_SECONDS
    assert not scene.doubted("bad")


def test_who_came_when_steps_were_slow_already_is_not_blamed() -> None:
    scene = Scene()
    scene.answer("good", 100)
    good, bad = scene.begin("good"), scene.begin("bad")
    scene.step(FAST, 20)
    assert scene.step(9 * SLOW) == []
    late = scene.begin("late")
    assert scene.step(9 * SLOW) == [unsure("bad")]
    scene.end(bad)
    assert scene.step(FAST, 20) == []
    scene.end(good, late)


def test_who_ended_in_vain_is_cleared_and_the_next_one_ends() -> None:
    scene = Scene()
    bad = scene.begin("bad")
    fresh = scene.begin("fresh")
    scene.step(FAST, 20)
    assert scene.step(9 * SLOW, 2) == [unsure("fresh")]
    scene.end(fresh)
    assert scene.step(9 * SLOW, 2) == [sure("bad")]
    scene.end(bad)
    # Nothing is held against the other: two more suspects have to be there again.
    fresh, other = scene.begin("fresh"), scene.begin("other")
    scene.step(FAST, 20)
    assert scene.step(9 * SLOW, 2) == [unsure("other")]
    scene.end(fresh, other)


def test_proof_does_not_hold_for_a_way_that_was_not_taken_before() -> None:
    """Who had a guide prove itself by other answers is not safe behind it."""
    scene = Scene()
    scene.answer("good", 300)
    scene.answer("bad", 300)
    for doubted in (False, True):
        good, bad = scene.begin("good"), scene.begin("bad")
        scene.step(FAST, 69)
        assert scene.step(9 * SLOW, 2) == [unsure("bad")]
        assert scene.doubted("bad") is doubted
        scene.end(bad)
        scene.step(FAST, 5)
        scene.end(good)
        scene.answer("good", 300)


def test_innocent_guides_beside_one_bad_guide_after_another_stay_allowed() -> None:
    scene = Scene()
    for number in range(20):
        good, bad = scene.begin("good"), scene.begin(f"bad {number}")
        scene.step(FAST, 69)
        blames = scene.step(9 * SLOW, 2)
        assert sure("good") not in blames
        assert len(blames) == 1
        scene.end(good, bad)
        scene.answer("good", 100)


def test_a_slow_step_in_each_of_many_short_answers_is_found() -> None:
    scene = Scene()
    scene.answer("good", 100)
    blames = []
    for _ in range(2):
        good, bad = scene.begin("good"), scene.begin("bad")
        blames += scene.step(FAST, 60) + scene.step(9 * SLOW)
        scene.end(bad)
        blames += scene.step(FAST, 20)
        scene.end(good)
        blames += scene.step(FAST)
    assert blames == []
    assert (scene.doubted("bad"), scene.doubted("good")) == (True, False)


def test_who_brings_a_form_along_when_steps_are_slow_keeps_it_out_for_itself_alone() -> None:
    scene = Scene()
    for number in range(2):
        common = scene.begin("common", source="bad")
        bad = scene.begin(f"bad {number}", source="bad")
        scene.step(FAST, 20)
        assert scene.step(9 * SLOW) == []
        scene.end(common, bad)
        scene.step(FAST)
    assert scene.doubted("common", "bad")
    assert not scene.doubted("common", "other")


@pytest.mark.parametrize("proven", [False, True])
def test_a_form_is_not_kept_out_by_what_one_other_source_does_beside_it(*, proven: bool) -> None:
    scene = Scene()
    for number in range(9):
        if proven:
            scene.answer(f"bad {number}", 100)
        theirs = scene.begin("new", source="other")
        bad = scene.begin(f"bad {number}", source="bad")
        scene.step(FAST, 20)
        blames = scene.step(9 * SLOW)
        assert sure("new") not in blames
        assert not scene.doubted("new", "other")
        scene.end(theirs, bad)
        scene.step(FAST)


def test_what_one_guide_did_is_not_held_against_the_next() -> None:
    scene = Scene()
    bad = scene.begin("bad")
    assert scene.step(9 * SLOW, 2) == [sure("bad")]
    scene.end(bad)
    blames = []
    for _ in range(2):
        other = scene.begin("other")
        blames += scene.step(FAST, 60) + scene.step(2 * SLOW)
        scene.end(other)
        blames += scene.step(FAST)
    assert blames == [sure("other")]


def test_a_last_slow_step_after_one_was_ended_is_not_held_against_those_that_stay() -> None:
    scene = Scene()
    scene.answer("good", 100)
    for number in range(2):
        good, bad = scene.begin("good"), scene.begin(f"bad {number}")
        scene.step(FAST, 69)
        assert scene.step(9 * SLOW, 2) == [unsure(f"bad {number}")]
        scene.end(bad)
        assert scene.step(2 * SLOW) == []
        assert scene.step(FAST) == []
        scene.end(good)


def test_one_slow_step_alone_ends_nothing_and_is_forgiven_when_passed_fast() -> None:
    scene = Scene()
    for _ in range(9):
        key = scene.begin("a")
        assert scene.step(FAST, 20) == []
        assert scene.step(99 * SLOW) == []
        scene.end(key)
        assert scene.step(FAST) == []
        scene.answer("a", 40)


def test_steps_that_are_slow_on_average_end_a_guide_though_some_are_fast() -> None:
    scene = Scene()
    scene.begin("a")
    blames = []
    for _ in range(9):
        blames += scene.step(3 * SLOW // 2, 3) + scene.step(0)
    assert blames[0] == sure("a")


def test_steps_just_within_what_they_may_take_end_nothing() -> None:
    scene = Scene()
    scene.begin("a")
    assert scene.step(SLOW, 99) == []
