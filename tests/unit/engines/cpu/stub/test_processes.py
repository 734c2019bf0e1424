"""Which engine processes there are, and when another is started."""

from typing import Any

from engines.cpu.messages import Census
from engines.cpu.request import Generation, Guide
from engines.cpu.stub.processes import EngineProcess, Processes, Suspects


def processes() -> Processes:
    link: Any = object()
    return Processes(lambda: link, most_kept=100)


def loaded(subject: Processes, key: int = 0) -> EngineProcess:
    engine = subject.start()
    subject.take_over(engine, key)
    return engine


def test_the_first_is_started_at_once_and_a_lost_one_later_each_time() -> None:
    subject = processes()
    assert subject.next_start(5.0) == 0.0
    engine = loaded(subject)
    assert subject.next_start(5.0) is None
    subject.lose(engine, 10.0)
    assert subject.current is None
    assert subject.next_start(10.0) == 10.0
    starts = []
    for now in (20.0, 30.0, 40.0):
        subject.lose(subject.start(), now)
        starts.append(subject.next_start(now))
    assert starts == [20.5, 31.0, 42.0]


def test_one_that_guides_fill_is_replaced_and_ends_what_it_runs() -> None:
    subject = processes()
    first = loaded(subject)
    first.census = Census(guide_bytes=99, running=2, used_blocks=5)
    assert subject.next_start(7.0) is None
    first.census = first.census._replace(guide_bytes=100)
    assert subject.next_start(7.0) == 7.0
    second = subject.start()
    assert subject.next_start(7.0) is None
    assert subject.of(3) is first
    subject.take_over(second, 4)
    assert (subject.of(3), subject.of(4)) == (first, second)
    second.census = Census(running=1, used_blocks=1, iterations=9)
    assert subject.census() == Census(running=3, used_blocks=6, iterations=9)
    assert subject.done([3, 4]) is None
    assert subject.done([4, 5]) is first
    assert subject.done([4]) is None
    assert subject.census() == second.census


def test_a_replacement_that_does_not_come_is_tried_again_later() -> None:
    subject = processes()
    loaded(subject).census = Census(guide_bytes=100)
    subject.lose(subject.start(), 10.0)
    assert subject.current is not None
    assert subject.next_start(11.0) == 70.0


def test_a_loss_beside_one_that_leaves_keeps_that() -> None:
    subject = processes()
    first = loaded(subject)
    second = loaded(subject, 4)
    subject.lose(second, 10.0)
    third = loaded(subject, 6)
    assert (subject.of(3), subject.of(6)) == (first, third)
    assert subject.all() == [first, third]


def test_silence_counts_only_while_somebody_listens() -> None:
    subject = processes()
    engine = subject.start()
    assert engine.quiet(1.0) == 0.0  # it is loading
    assert not subject.well(5.0)
    subject.take_over(engine, 0)
    assert subject.well(5.0)
    assert engine.quiet(1.0) == 1.0
    assert engine.quiet(3600.0) == 3.0  # the listener was away
    assert subject.well(5.0)
    engine.quiet(2.0)
    assert not subject.well(5.0)


BAD, OTHER = ("regex", "a"), ("regex", "b")


def asks(guide: Guide, source: str = "") -> Generation:
    return Generation((1,), 9, guide=guide, source=source)


def test_a_guide_is_doubted_at_the_second_time_for_a_while_and_for_those_who_asked() -> None:
    suspects = Suspects()
    suspects.ended([asks(BAD, "acme"), asks(BAD, "acme"), asks(OTHER, "acme")], ["acme"], 0.0)
    assert not suspects.doubted(BAD, "acme", 0.0)
    suspects.ended([asks(BAD, "acme")], ["acme"], 100.0)
    assert suspects.doubted(BAD, "acme", 399.0)
    assert not suspects.doubted(BAD, "acme", 400.0)
    assert not suspects.doubted(BAD, "umbrella", 100.0)
    assert not suspects.doubted(OTHER, "acme", 100.0)
    assert not suspects.guilty(BAD), "chance may have it so"


def test_a_good_answer_clears() -> None:
    suspects = Suspects()
    for _ in range(3):
        suspects.ended([asks(BAD)], [], 0.0)
        suspects.clear(BAD)
    assert not suspects.doubted(BAD, "", 0.0)


def test_a_guide_is_guilty_whoever_asks_where_nothing_else_can_be_why() -> None:
    suspects = Suspects()
    suspects.convict(BAD)
    assert (suspects.guilty(BAD), suspects.guilty(OTHER)) == (True, False)


def test_only_the_latest_guilty_ones_are_remembered() -> None:
    suspects = Suspects()
    suspects.convict(BAD)
    for number in range(4095):
        suspects.convict(("regex", str(number)))
    suspects.convict(BAD)
    suspects.convict(OTHER)
    assert suspects.guilty(BAD)
    assert not suspects.guilty(("regex", "0"))


def test_a_source_of_guilty_guides_is_not_trusted_for_a_while() -> None:
    suspects = Suspects()
    for now in (0.0, 100.0):
        suspects.note_source("many", now)
        suspects.note_source("", now)
    assert suspects.trusts("many", 100.0)
    suspects.note_source("many", 200.0)
    suspects.note_source("", 200.0)
    assert not suspects.trusts("many", 799.0)
    assert suspects.trusts("many", 800.0)
    assert suspects.trusts("other", 200.0)
    assert suspects.trusts("", 200.0), "it may be anybody"
    suspects.note_source("many", 800.0)
    assert suspects.trusts("many", 800.0), "it begins anew"
