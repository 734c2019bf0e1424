"""What is held against sources, for how long, and by which process."""

import pytest

from engines.cpu.process.sources import Sources


def test_what_is_held_against_a_source_fades_and_is_its_own() -> None:
    sources = Sources()
    sources.add("a", 0.0, taken=5.0, alone=3.0)
    sources.add("a", 0.0, kept=10.0)
    stands = sources.of("a", 0.0)
    assert (stands.taken_ns, stands.alone_ns, stands.kept_bytes) == (5.0, 3.0, 10.0)
    later = sources.of("a", 600.0)
    assert later.kept_bytes == pytest.approx(10 / 2.718, rel=0.01)
    sources.add("a", 600.0, taken=-100.0)
    assert sources.of("a", 600.0).taken_ns == 0.0
    assert sources.of("b", 0.0).kept_bytes == 0.0


def test_nothing_is_held_against_nobody() -> None:
    sources = Sources()
    sources.add("", 0.0, kept=10.0)
    assert sources.of("", 0.0).kept_bytes == 0.0
    assert sources.told(0.0) is None


def test_the_next_process_goes_on_where_the_last_one_left_off() -> None:
    first, second = Sources(), Sources()
    first.add("a", 0.0, taken=5.0, alone=3.0, kept=10.0)
    told = first.told(0.0)
    assert told is not None
    assert first.told(5.0) is None
    second.inherit(told)
    assert second.of("a", 600.0) == first.of("a", 600.0)
    assert second.told(600.0) is None, "the stub has said so itself"
    second.add("b", 600.0, kept=1.0)
    both = second.told(600.0)
    assert both is not None
    assert {one.source for one in both.sources} == {"a", "b"}


def test_only_the_latest_are_kept() -> None:
    sources = Sources()
    for number in range(257):
        sources.add(f"{number}", 0.0, kept=1.0)
    assert sources.of("0", 0.0).kept_bytes == 0.0
    assert sources.of("1", 0.0).kept_bytes == 1.0


def test_it_is_told_once_a_second_at_most() -> None:
    sources = Sources()
    for now in (0.0, 0.5):
        sources.add("a", now, kept=1.0)
    assert sources.told(5.0) is not None
    sources.add("a", 5.0, kept=1.0)
    assert sources.told(5.9) is None
    assert sources.told(6.0) is not None
    assert sources.told(9.0) is None
