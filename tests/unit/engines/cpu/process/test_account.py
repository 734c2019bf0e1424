"""What guides and their sources are charged, in histories of who was there."""

from random import Random

import pytest

from engines.cpu.process.account import Account
from engines.cpu.process.sources import Sources
from engines.cpu.process.watch import Blame, Following
from engines.cpu.suspicion import Suspect

MAY = 1000
"""What the guides of a step may take."""


class Scene:
    """Answers that go on a token a step."""

    def __init__(self) -> None:
        self.account = Account(MAY, Sources())
        self.running: dict[int, Following] = {}
        self.key = 0
        self.now = 0.0

    def begin(self, guide: str, source: str = "bad", tokens: int = 0) -> int:
        """Begin an answer, which makes so many tokens at once in fast steps."""
        key = self.join(guide, source)
        assert self.step(0, tokens) == []
        return key

    def join(self, guide: str, source: str = "bad") -> int:
        self.key += 1
        self.running[self.key] = Following(self.key, guide.encode(), 0, source)
        return self.key

    def end(self, *keys: int) -> None:
        for key in keys:
            del self.running[key]

    def step(self, ns: int, times: int = 1) -> list[Blame]:
        found: list[Blame] = []
        for _ in range(times):
            found += self.account.took(ns, list(self.running.values()), self.now)
            for key, one in self.running.items():
                self.running[key] = one._replace(length=one.length + 1)
        return found

    def until_blamed(self, ns: int, most: int = 100) -> tuple[int, list[Blame]]:
        for steps in range(1, most + 1):
            if blames := self.step(ns):
                return steps, blames
        return most, []

    def token_ns(self, guide: str) -> int:
        return self.account.token_ns(guide.encode())

    def no_dear(self, guide: str, source: str = "bad") -> bool:
        return self.account.no_dear(source, guide.encode(), self.now)

    def no_new(self, source: str = "bad") -> bool:
        return self.account.no_new(source, self.now)


def sure(guide: str) -> list[Blame]:
    return [Blame(guide.encode(), certain=True)]


def unsure(*guides: str) -> list[Blame]:
    return [Blame(guide.encode(), certain=False) for guide in guides]


def test_a_guide_that_takes_more_than_it_may_is_dear_by_what_it_takes() -> None:
    scene = Scene()
    scene.begin("a", tokens=130)
    scene.step(3 * MAY, 2)
    assert scene.token_ns("a") == 0, "on average it does not"
    scene.step(3 * MAY, 60)
    assert scene.token_ns("a") == pytest.approx(3 * MAY, rel=0.05)
    answer = scene.begin("a", tokens=130)
    assert scene.token_ns("a") > 2 * MAY, "however cheap an answer begins"
    scene.end(answer)


@pytest.mark.parametrize(("ns", "steps"), [(9, 13), (30, 3), (3000, 3)])
def test_a_guide_alone_that_takes_much_more_ends_soon_and_is_refused(ns: int, steps: int) -> None:
    scene = Scene()
    scene.begin("a", tokens=130)
    assert scene.until_blamed(ns * MAY) == (steps, sure("a"))


def test_a_guide_that_has_come_as_far_at_no_cost_again_and_again_is_dear_no_longer() -> None:
    scene = Scene()
    scene.end(scene.begin("a", tokens=130))
    key = scene.begin("a", tokens=130)
    scene.step(100 * MAY)
    scene.end(key)
    assert scene.token_ns("a") > MAY
    scene.end(scene.begin("a", tokens=129))
    assert scene.token_ns("a") > MAY
    scene.end(scene.begin("a", tokens=140))
    assert scene.token_ns("a") == 0


def test_a_guide_stays_dear_whose_source_has_it_answer_cheap_in_between() -> None:
    scene = Scene()
    for _ in range(60):
        scene.end(scene.begin("a", tokens=140))
        key = scene.begin("a", tokens=130)
        scene.step(40 * MAY, 2)
        scene.end(key)
    for _ in range(20):
        scene.end(scene.begin("a", tokens=140))
    assert scene.no_dear("a")
    assert scene.token_ns("a") > MAY


def test_a_few_slow_steps_end_nothing_however_slow_they_are() -> None:
    scene = Scene()
    scene.begin("a")
    for _ in range(9):
        assert scene.step(5000 * MAY, 2) == []
        assert scene.step(0, 60) == []


def test_what_takes_no_more_than_it_may_is_charged_nothing() -> None:
    scene = Scene()
    scene.begin("a")
    scene.begin("b", "good")
    assert scene.step(MAY, 100_000) == []
    assert (scene.token_ns("a"), scene.no_new(), scene.no_new("good")) == (0, False, False)


def test_answers_of_one_guide_share_what_a_step_takes() -> None:
    scene = Scene()
    for _ in range(4):
        scene.begin("a")
    assert scene.step(4 * MAY, 100) == []
    assert scene.token_ns("a") == 0


def test_a_guide_alone_is_refused_though_several_answers_follow_it() -> None:
    scene = Scene()
    for _ in range(2):
        scene.begin("a")
    scene.step(0, 130)
    steps, blames = scene.until_blamed(20 * MAY)
    assert blames == sure("a")
    assert steps < 8


def test_a_guide_that_takes_what_it_may_is_not_refused_for_many_answers_at_once() -> None:
    scene = Scene()
    for _ in range(16):
        scene.begin("a")
    assert scene.until_blamed(16 * MAY // 2)[1] == unsure("a")


def test_of_two_guides_the_one_further_than_ever_is_to_blame_but_never_certainly() -> None:
    scene = Scene()
    good = scene.begin("good", "good", tokens=200)
    scene.end(good)
    scene.begin("good", "good")
    scene.begin("bad", tokens=130)
    steps, blames = scene.until_blamed(20 * MAY)
    assert blames == unsure("bad")
    assert steps <= 8
    assert scene.token_ns("good") < scene.token_ns("bad") / 3


def test_many_guides_of_one_source_that_each_take_little_too_much_end_together() -> None:
    scene = Scene()
    good = scene.begin("good", "good")
    for number in range(9):
        scene.begin(str(number))
    scene.step(0, 130)
    steps, blames = scene.until_blamed(9 * 4 * MAY)
    assert blames == unsure(*map(str, range(9)))
    assert steps < 9
    assert good in scene.running


def test_a_pair_that_is_ended_again_and_again_is_kept_from_bringing_new_ones() -> None:
    scene = Scene()
    taken = 0
    while not scene.no_new():
        keys = [scene.begin(f"{scene.key} a"), scene.begin(f"{scene.key} b")]
        scene.step(0, 130)
        steps, blames = scene.until_blamed(45 * MAY)
        assert blames
        scene.end(*keys)
        taken += steps * 44
    assert taken < 500 + 5 * 44


def test_a_guide_that_is_dear_by_its_many_answers_is_dear_from_then_on() -> None:
    """None of its answers takes what a guide may: eight of them at once do, many times over."""
    scene = Scene()
    for _ in range(8):
        scene.begin("a", tokens=130)
    assert scene.token_ns("a") == 0
    _, blames = scene.until_blamed(7 * MAY)
    assert blames == unsure("a")
    assert scene.token_ns("a") >= MAY, "one of its answers runs at a time"
    scene.end(*scene.running)
    scene.begin("a", tokens=130)
    scene.step(MAY // 4, 1200)
    assert scene.token_ns("a") == 0, "a later one came as far at no cost"


def test_calls_that_are_given_up_are_charged_all_the_same_and_forgotten_after_a_while() -> None:
    scene = Scene()
    for number in range(7):
        assert not scene.no_new()
        key = scene.begin(str(number), tokens=130)
        assert scene.step(40 * MAY, 2) == []
        scene.end(key)
    assert scene.no_new()
    assert scene.no_dear("0"), "it took more than it may"
    assert not scene.no_dear("other")
    for _ in range(8):
        key = scene.begin("0", tokens=130)
        scene.step(40 * MAY, 2)
        scene.end(key)
    assert scene.no_dear("other")
    scene.now += 600
    assert not scene.no_dear("other")
    scene.now += 600
    assert not scene.no_new()
    assert not scene.no_dear("0")


def test_a_source_that_says_not_who_it_is_is_not_counted() -> None:
    scene = Scene()
    scene.begin("a", source="")
    scene.step(100 * MAY, 50)
    assert not scene.no_new("")


def test_who_ran_beside_is_hardly_charged_and_not_at_all_once_it_came_as_far_again() -> None:
    scene = Scene()
    for number in range(100):
        good, bad = scene.begin("good", "good"), scene.begin(str(number), f"bad {number}")
        scene.step(0, 130)
        scene.until_blamed(45 * MAY)
        scene.end(bad)
        scene.step(0, 5)
        scene.end(good)
        assert not scene.no_new("good")
        good = scene.begin("good", "good", tokens=200)
        scene.end(good)


def test_new_forms_beside_one_bad_form_after_another_stay_allowed() -> None:
    scene = Scene()
    bad = 0
    while not scene.no_dear("another"):
        bad += 1
        keys = [scene.begin(f"good {bad}", "good"), scene.begin(f"bad {bad}")]
        scene.step(0, 130)
        scene.until_blamed(45 * MAY)
        scene.end(*keys)
        other = scene.begin(f"alone {bad}", tokens=130)
        scene.until_blamed(45 * MAY)
        scene.end(other)
    assert not scene.no_new("good")


def test_a_guide_that_seems_to_be_why_twice_is_kept_out_where_its_source_asks() -> None:
    scene = Scene()
    for number in range(2):
        assert not scene.account.suspicion.doubted(Suspect("bad", b"bad"), scene.now)
        good = scene.begin(f"good {number}", "bad", tokens=200)
        scene.end(good)
        keys = [scene.begin(f"good {number}", "bad"), scene.begin("bad")]
        scene.step(0, 100)
        assert Blame(b"bad", certain=False) in scene.until_blamed(20 * MAY)[1]
        scene.end(*keys)
    assert scene.account.suspicion.doubted(Suspect("bad", b"bad"), scene.now)
    assert not scene.account.suspicion.doubted(Suspect("good", b"bad"), scene.now)


def test_a_guide_of_others_that_a_source_brings_along_is_not_refused() -> None:
    scene = Scene()
    for number in range(9):
        keys = [scene.begin("good", "bad"), scene.begin(str(number), "bad")]
        scene.step(0, 130)
        assert all(not blame.certain for blame in scene.until_blamed(45 * MAY)[1])
        scene.end(*keys)
    assert not scene.account.suspicion.doubted(Suspect("good", b"good"), scene.now)
    assert scene.token_ns("good") > MAY
    scene.begin("good", "good")
    assert scene.step(MAY // 2, 200) == []
    assert scene.token_ns("good") == 0


@pytest.mark.parametrize(("second", "again"), [("worse", 20), ("bad", 200)])
def test_cheap_tokens_take_nothing_back(second: str, again: int) -> None:
    """Neither later ones of the same answer, nor those of one that came less far or was alone."""
    scene = Scene()
    for _ in range(60):
        keys = [scene.begin("a"), scene.begin("b", second)]
        scene.step(0, 130)
        scene.step(40 * MAY, 2)
        scene.step(0, 20)
        scene.end(*keys)
        for guide, source in (("a", "bad"), ("b", second)):
            scene.end(scene.begin(guide, source, tokens=again))
    assert scene.no_new("bad")
    assert scene.no_new(second)


def test_a_source_that_has_taken_much_is_charged_the_most() -> None:
    scene = Scene()
    for number in range(6):
        scene.end(scene.begin(str(number), tokens=130))
        key = scene.begin(str(number), tokens=130)
        scene.step(40 * MAY, 2)
        scene.end(key)
    scene.begin("new", "good")
    scene.begin("new too")
    scene.step(0, 130)
    scene.step(20 * MAY, 3)
    assert scene.token_ns("new") == 0
    assert scene.token_ns("new too") > 2 * MAY


def test_a_guide_that_has_just_taken_much_is_charged_the_most() -> None:
    scene = Scene()
    scene.begin("bad", source="", tokens=130)
    scene.step(30 * MAY, 2)
    scene.begin("good", source="")
    scene.step(20 * MAY, 2)
    assert scene.token_ns("good") == 0


def test_a_guide_that_went_another_way_is_no_longer_proven_there() -> None:
    scene = Scene()
    for guide in ("bad", "good"):
        scene.end(scene.begin(guide, source="", tokens=200))
    bad = scene.begin("bad", source="", tokens=130)
    scene.step(20 * MAY, 2)
    scene.end(bad)
    scene.begin("good", source="")
    scene.begin("bad", source="")
    scene.step(0, 130)
    scene.step(20 * MAY, 3)
    assert scene.token_ns("good") == 0


def test_of_a_source_only_guides_that_take_much_end() -> None:
    scene = Scene()
    scene.end(scene.begin("good", tokens=200))
    scene.begin("good")
    scene.begin("bad")
    scene.step(0, 130)
    assert scene.until_blamed(20 * MAY)[1] == unsure("bad")


def test_what_is_given_back_is_given_back_once() -> None:
    scene = Scene()
    keys = [scene.begin("a", "good"), scene.begin("b")]
    scene.step(0, 130)
    scene.step(3000 * MAY)
    assert scene.no_new("good")
    scene.end(*keys)
    for _ in range(20):
        scene.end(scene.begin("a", "good", tokens=140))
        key = scene.begin("c", "good")
        scene.step(40 * MAY, 2)
        scene.end(key)
    assert scene.no_new("good")


def beside_a_neighbour(
    cost: float, *, width: int, fresh: bool, alternating: bool, away: int
) -> tuple[int, bool, bool, bool]:
    """A tenant's form that ran cheap for an answer and is dear from then on beside a neighbour's.

    Steps that were dear until it loses trust, and whether it does, its form is kept from running
    and the neighbour keeps trust.
    """
    random = Random(1)
    scene = Scene()
    scene.end(scene.begin("bad", tokens=200))
    due = {"bad": away} | {f"good {number}": 0 for number in range(width)}  # steps until they begin
    slots: dict[str, int] = {}
    answers = dear = 0
    for _ in range(3000):
        for slot in due:
            if slot not in slots and due[slot] == 0:
                source = slot.split()[0]
                answers += source == "bad"
                name = f"{slot} {scene.key}" if fresh and source == "good" else slot
                slots[slot] = scene.join(name, source)
            due[slot] = max(0, due[slot] - 1)
        slow = "bad" in slots and scene.running[slots["bad"]].length >= 2
        slow &= not (alternating and answers % 2 == 0)
        dear += slow
        took = int(cost * MAY * random.uniform(0.7, 1.3)) if slow else MAY // 10
        blames = scene.step(took) if slots else []
        scene.now += 0.04
        ended = {blame.guide for blame in blames}
        for slot, key in list(slots.items()):
            one = scene.running[key]
            if one.guide in ended or one.length >= (200 if slot == "bad" else 60):
                scene.end(slots.pop(slot))
                due[slot] = away if slot == "bad" else 1  # while it reads its prompt
        if scene.no_new():
            break
    return dear, scene.no_new(), scene.no_dear("bad"), not scene.no_new("good")


@pytest.mark.parametrize("alternating", [False, True], ids=["always", "in turns"])
@pytest.mark.parametrize("fresh", [False, True], ids=["known", "fresh"])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("away", [1, 3])
@pytest.mark.parametrize("cost", [2, 4.5, 9])
def test_who_brings_what_is_dear_loses_trust_and_a_neighbour_keeps_it(
    cost: float, away: int, width: int, *, fresh: bool, alternating: bool
) -> None:
    dear, lost, stopped, kept = beside_a_neighbour(
        cost, width=width, fresh=fresh, alternating=alternating, away=away
    )
    assert (lost, stopped, kept) == (True, True, True)
    assert dear * (cost - 1) < 2.5 * 500, "little of it is held against others"


def test_who_brings_many_guides_has_its_own_forgotten_not_those_of_others() -> None:
    scene = Scene()
    scene.begin("dear", "one", tokens=130)
    scene.step(3 * MAY, 60)
    scene.end(*scene.running)
    scene.end(scene.begin("good", "other", tokens=200))
    for number in range(5000):
        scene.end(scene.begin(str(number), "many", tokens=1))
    assert scene.token_ns("dear") > 2 * MAY
    scene.begin("good", "other")
    scene.begin("new", "another")
    scene.step(0, 130)
    scene.step(20 * MAY, 2)
    assert scene.token_ns("good") == 0, "it came further before"
