"""Who was there each time is guilty; who is cleared is nobody's excuse any more."""

from engines.cpu.suspicion import Suspicion


def these(*names: str) -> frozenset[bytes]:
    return frozenset(name.encode() for name in names)


def test_a_suspect_in_other_company_each_time_is_guilty() -> None:
    suspicion = Suspicion()
    assert suspicion.accuse(these("a", "b")) == these()
    assert suspicion.accuse(these("a", "c")) == these("a")
    assert suspicion.accuse(these("b", "c")) == these("b", "c")


def test_two_that_are_always_together_are_not_told_apart_until_one_is_cleared() -> None:
    suspicion = Suspicion()
    for _ in range(3):
        assert suspicion.accuse(these("a", "b")) == these()
    suspicion.clear(b"b")
    assert suspicion.accuse(these("a", "b")) == these("a")


def test_only_the_latest_are_remembered() -> None:
    suspicion = Suspicion()
    suspicion.accuse(these("first"))
    for number in range(256):
        suspicion.accuse(these(str(number)))
    assert len(suspicion) == 256
    assert suspicion.accuse(these("first")) == these()
