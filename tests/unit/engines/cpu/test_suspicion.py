"""Who was there each time is doubted; who is cleared is nobody's excuse any more."""

from engines.cpu.suspicion import DOUBT_SECONDS, Suspect, Suspicion


def these(*names: str, source: str = "") -> frozenset[Suspect]:
    return frozenset(Suspect(source, name.encode()) for name in names)


class Scene:
    def __init__(self) -> None:
        self.suspicion = Suspicion()
        self.now = 0.0

    def accuse(self, *suspects: frozenset[Suspect], beside: str = "") -> frozenset[Suspect]:
        together = frozenset[Suspect]().union(*suspects)
        return self.suspicion.accuse(together, beside.split(), self.now)


def test_a_suspect_in_other_company_each_time_is_doubted() -> None:
    scene = Scene()
    assert scene.accuse(these("a", "b")) == these()
    assert scene.accuse(these("a", "c")) == these("a")
    assert scene.accuse(these("b", "c")) == these("b", "c")


def test_two_that_are_always_together_are_not_told_apart_until_one_is_cleared() -> None:
    scene = Scene()
    for _ in range(3):
        assert scene.accuse(these("a", "b")) == these()
    scene.suspicion.clear(b"b")
    assert scene.accuse(these("a", "b")) == these("a")


def test_a_doubt_is_for_those_who_brought_it_alone() -> None:
    scene = Scene()
    for number in range(2):
        scene.accuse(these("common", f"bad {number}", source="bad"))
    (common,) = these("common", source="bad")
    assert scene.suspicion.doubted(common, scene.now)
    assert not scene.suspicion.doubted(common._replace(source="other"), scene.now)


def test_what_one_source_does_keeps_out_nothing_of_another_however_often() -> None:
    scene = Scene()
    theirs = these("theirs", source="other")
    for number in range(9):
        assert scene.accuse(theirs, these(f"bad {number}", source="bad")) == these()
        scene.suspicion.clear(f"bad {number}".encode())
    for _ in range(9):
        assert scene.accuse(theirs, beside="bad") == these(), "it is no suspect, but was there"


def test_one_that_was_beside_different_sources_is_doubted() -> None:
    scene = Scene()
    bad = these("bad", source="bad")
    assert scene.accuse(bad, these("a", source="one")) == these()
    assert scene.accuse(bad, these("b", source="two")) == bad


def test_it_is_forgotten_after_a_while() -> None:
    scene = Scene()
    (one,) = these("a")
    scene.accuse(these("a"))
    scene.now = DOUBT_SECONDS
    assert scene.accuse(these("a")) == these(), "the first time is forgotten"
    scene.now += DOUBT_SECONDS - 1.0
    assert scene.accuse(these("a")) == {one}
    scene.now += DOUBT_SECONDS - 1.0
    assert scene.suspicion.doubted(one, scene.now)
    scene.now += 1.0
    assert not scene.suspicion.doubted(one, scene.now)


def test_only_the_latest_are_remembered() -> None:
    scene = Scene()
    scene.accuse(these("first"))
    for number in range(256):
        scene.accuse(these(str(number)))
    assert len(scene.suspicion) == 256
    assert scene.accuse(these("first")) == these()
