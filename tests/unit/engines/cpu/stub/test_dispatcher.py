"""News from the engine become responses; a dead engine ends its requests and is replaced."""

import contextlib
import functools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engines.cpu.messages import (
    TOO_SLOW,
    Batch,
    Cancel,
    Census,
    End,
    LoadFailed,
    Progress,
    Ready,
    Standing,
    Standings,
    Step,
    Submit,
)
from engines.cpu.request import Generation, InvalidRequestError, Limits
from engines.cpu.settings import Settings
from engines.cpu.stub.answer import Payload
from engines.cpu.stub.dispatcher import Dispatcher, NotReadyError
from engines.cpu.transport import Transport

LIMITS = Limits(vocabulary=100, max_seq_len=64, total_blocks=4, block_size=32)
END = End(first_scheduled_ns=1)
AGAIN = "the engine is ready again"
SETTINGS = Settings(model="m", cancellation_check_period_ms=1, stats_check_period_ms=10)


_changed = threading.Condition()
"""Notified whenever a fake was used, so that nobody sleeps to wait."""


def until(condition: Callable[[], object]) -> None:
    with _changed:
        assert _changed.wait_for(condition, timeout=5), "it did not happen"


@contextlib.contextmanager
def change() -> Iterator[None]:
    with _changed:
        yield
        _changed.notify_all()


class FakeLink:
    """An engine process played by the test: `engine` is its end of the socket pair."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.transport, self.engine = Transport(ours), Transport(theirs)
        self.ended = False
        self.inbox: list[Any] = []
        self.at_reap: Callable[[], None] = lambda: None
        self.step = Step((), alone=False)
        self.late = False

    def last_step(self) -> Step:
        return self.step

    def overdue(self) -> bool:
        return self.late

    def hear(self) -> Any:
        """The next message from the dispatcher."""
        while not self.inbox:
            readable, _, _ = select.select([self.engine], [], [], 5)
            assert readable, "the dispatcher says nothing"
            self.refill()
        return self.inbox.pop(0)

    def refill(self) -> list[Any]:
        self.inbox += self.engine.receive()
        return self.inbox

    def quit(self) -> None:
        self.ended = True
        self.transport.close()
        self.engine.close()

    def reap(self) -> str:
        self.at_reap()
        self.quit()
        return "signal 9"


class FakeSender:
    """Remembers, and refuses what would crash the server."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.errors: list[str] = []
        self.finals = 0
        self.cancelled = False
        self.broken = False
        self.at_last: Callable[[], None] = lambda: None
        self.thread: int | None = None

    def touch(self) -> None:
        assert self.finals == 0, "used after its last response"
        assert self.thread in (None, threading.get_ident()), "used by two threads"
        self.thread = threading.get_ident()

    def send(self, payload: Payload, *, final: bool) -> None:
        with change():
            self.touch()
            if final:
                self.at_last()
            if self.broken:
                raise RuntimeError("cannot send")
            self.sent.append(payload["output_ids"][0, 0].tolist())
            self.finals += final

    def fail(self, text: str) -> None:
        with change():
            self.touch()
            self.at_last()
            self.errors.append(text)
            self.finals += 1

    def end(self) -> None:
        with change():
            self.touch()
            self.at_last()
            self.finals += 1

    def is_cancelled(self) -> bool:
        self.touch()
        return self.cancelled


class FakePublisher:
    def __init__(self) -> None:
        self.published: list[tuple[Census, int]] = []
        self.observed: list[tuple[int, int]] = []
        self.broken = False

    def publish(self, census: Census, active: int) -> None:
        with change():
            self.published.append((census, active))

    def observe(self, input_tokens: int, output_tokens: int) -> None:
        if self.broken:
            raise RuntimeError("no metrics")
        with change():
            self.observed.append((input_tokens, output_tokens))


class Scene:
    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.log: list[str] = []
        self.publisher = FakePublisher()
        self.dispatcher = Dispatcher(SETTINGS, self.launch, self.say)

    def say(self, text: str) -> None:
        with change():
            self.log.append(text)

    def launch(self) -> Any:
        link = FakeLink()
        with change():
            self.links.append(link)
        if len(self.links) == 1:
            link.engine.send(Ready(LIMITS))
        return link

    def submit(self, request_id: str = "", **options: Any) -> FakeSender:
        sender = FakeSender()
        generation = Generation(prompt=(1, 2), max_new_tokens=9, **options)
        self.dispatcher.submit(request_id, generation, sender, 1)
        return sender

    def fall_silent(self) -> None:
        """The engine has said nothing for long, as far as the dispatcher knows."""
        engine = self.dispatcher._processes.current
        assert engine is not None
        engine.silence = 1e6

    def news(self, *progress: Progress) -> None:
        self.links[-1].engine.send(Batch([*progress], Census()))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    assert scene.dispatcher.start() == LIMITS
    scene.dispatcher.serve(scene.publisher)
    yield scene
    scene.dispatcher.close()
    assert all(link.ended for link in scene.links)


def test_tokens_go_to_their_callers_until_the_end(scene: Scene) -> None:
    first, second = scene.submit(streaming=True), scene.submit()
    link = scene.links[0]
    keys = [link.hear().key, link.hear().key]
    census = Census(iterations=1, running=2)
    link.engine.send(Batch([Progress(key, [5], []) for key in keys], census))
    until(lambda: first.sent == [[5]])
    link.engine.send(Batch([Progress(key, [6], [], END) for key in keys], census))
    until(lambda: first.finals and second.finals)
    assert first.sent == [[5], [6]]
    assert second.sent == [[5, 6]]
    until(lambda: scene.publisher.published[-1:] == [(census, 0)])
    assert scene.publisher.observed == [(2, 2), (2, 2)]


def test_an_error_of_one_request_is_its_own(scene: Scene) -> None:
    sender = scene.submit(streaming=True)
    key = scene.links[0].hear().key
    scene.news(Progress(key, [], [], End("no")))
    until(lambda: sender.finals)
    assert sender.errors == ["no"]


def test_a_caller_who_leaves_ends_the_request(scene: Scene) -> None:
    sender = scene.submit(streaming=True)
    link = scene.links[0]
    key = link.hear().key
    sender.cancelled = True
    assert link.hear() == Cancel(key)
    scene.news(Progress(key, [5], [], END))
    until(lambda: sender.finals)
    assert sender.sent == []


@pytest.mark.parametrize("streaming", [True, False])
def test_a_stopped_request_ends_with_what_it_has(scene: Scene, *, streaming: bool) -> None:
    sender = scene.submit("a", streaming=streaming)
    link = scene.links[0]
    key = link.hear().key
    scene.news(Progress(key, [5, 6], []))
    if streaming:
        until(lambda: sender.sent)
    scene.dispatcher.stop("a")
    assert link.hear() == Cancel(key)
    scene.news(Progress(key, [7], [], END))
    until(lambda: sender.finals)
    assert sender.sent == ([[5, 6], [7]] if streaming else [[5, 6, 7]])
    assert scene.publisher.observed == [(2, 3)]


def test_stop_ends_all_requests_of_that_id_and_no_other(scene: Scene) -> None:
    scene.submit("a")
    scene.submit("a")
    scene.submit("b")
    link = scene.links[0]
    keys = [link.hear().key for _ in range(3)]
    scene.dispatcher.stop("a")
    assert [link.hear(), link.hear()] == [Cancel(keys[0]), Cancel(keys[1])]
    assert not link.refill()


def test_stopping_twice_late_or_what_nobody_asked_for_harms_nothing(scene: Scene) -> None:
    sender, other = scene.submit("a"), scene.submit("b", streaming=True)
    link = scene.links[0]
    key, other_key = link.hear().key, link.hear().key
    scene.dispatcher.stop("nobody")
    scene.dispatcher.stop("a")
    scene.dispatcher.stop("a")
    assert [link.hear(), link.hear()] == [Cancel(key), Cancel(key)]
    scene.news(Progress(key, [5], [], END), Progress(other_key, [6], []))
    until(lambda: sender.finals and other.sent)
    scene.dispatcher.stop("a")
    assert not link.refill()
    scene.news(Progress(other_key, [7], [], END))
    until(lambda: other.finals)
    assert (sender.sent, other.sent) == ([[5]], [[6], [7]])


def test_every_request_that_ran_is_counted_once_before_its_last_response(scene: Scene) -> None:
    link = scene.links[0]
    senders = {name: scene.submit(name) for name in ("done", "left", "failed", "broken", "refused")}
    keys = dict(zip(senders, [link.hear().key for _ in senders], strict=True))
    seen: dict[str, int] = {}

    def note(name: str) -> None:
        seen[name] = len(scene.publisher.observed)

    for name, sender in senders.items():
        sender.at_last = functools.partial(note, name)
    senders["left"].cancelled = True
    assert link.hear() == Cancel(keys["left"])
    senders["broken"].broken = True
    for name, error in (("done", None), ("left", None), ("failed", "no"), ("broken", None)):
        scene.news(Progress(keys[name], [5, 6], [], END._replace(error=error)))
    scene.news(Progress(keys["refused"], [], [], End("the queue is full")))
    until(lambda: senders["refused"].finals)
    assert seen == {"done": 1, "left": 2, "failed": 3, "broken": 4, "refused": 4}
    assert scene.publisher.observed == [(2, 2)] * 4


def test_what_a_dead_engine_had_sent_is_counted(scene: Scene) -> None:
    sender = scene.submit(streaming=True)
    scene.news(Progress(scene.links[0].hear().key, [5, 6], []))
    until(lambda: sender.sent)
    scene.links[0].engine.close()
    until(lambda: sender.finals)
    assert scene.publisher.observed == [(2, 2)]


def test_a_request_is_answered_though_it_cannot_be_counted(scene: Scene) -> None:
    scene.publisher.broken = True
    sender = scene.submit()
    scene.news(Progress(scene.links[0].hear().key, [5], [], END))
    until(lambda: sender.finals)
    assert sender.sent == [[5]]


def test_an_engine_that_dies_with_messages_unsent_is_a_dead_engine(scene: Scene) -> None:
    link = scene.links[0]
    link.transport.send(bytes(4_000_000))  # more than the socket takes
    sender = scene.submit()
    assert link.transport.unsent
    link.engine.send(Ready(LIMITS))
    until(lambda: "the engine is ready again" in scene.log)  # it has looked, and waits to write
    time.sleep(0.05)  # nothing says so: without it the test would only prove less
    link.engine.close()
    until(lambda: sender.finals)
    assert sender.errors[0].endswith("the engine process ended")


def test_a_dead_engine_fails_its_requests_before_anything_else_and_is_replaced(
    scene: Scene,
) -> None:
    senders = [scene.submit(streaming=True) for _ in range(20)]
    failed_at_reap: list[int] = []
    link = scene.links[0]
    link.at_reap = lambda: failed_at_reap.append(sum(sender.finals for sender in senders))
    link.engine.close()
    until(lambda: len(scene.links) == 2)
    assert failed_at_reap == [20]
    assert senders[4].errors == [
        "Executor failed process requestId 5 due to the following error: the engine process ended"
    ]
    with pytest.raises(NotReadyError, match="not at ready state"):
        scene.submit()
    scene.links[1].engine.send(Ready(LIMITS))
    until(lambda: "the engine is ready again" in scene.log)
    scene.submit()
    assert isinstance(scene.links[1].hear(), Submit)


def test_trouble_in_the_thread_fails_all_and_starts_anew(scene: Scene) -> None:
    sender = scene.submit(streaming=True)
    link = scene.links[0]
    link.hear()
    nothing: Any = None  # not iterable: an error nobody foresaw
    link.engine.send(Batch(nothing, Census()))
    until(lambda: sender.finals)
    assert "internal error" in sender.errors[0]
    until(lambda: len(scene.links) == 2)


def test_a_caller_who_cannot_be_reached_does_not_hurt_others(scene: Scene) -> None:
    lost, other = scene.submit(streaming=True), scene.submit(streaming=True)
    link = scene.links[0]
    keys = [link.hear().key, link.hear().key]
    lost.broken = True
    scene.news(*[Progress(key, [5], []) for key in keys])
    until(lambda: other.sent == [[5]] and lost.finals)
    assert link.hear() == Cancel(keys[0])
    scene.news(Progress(keys[0], [6], [], END))
    until(lambda: scene.publisher.observed == [(2, 2)])


def test_closing_fails_what_still_runs() -> None:
    scene = Scene()
    scene.dispatcher.start()
    scene.dispatcher.serve(scene.publisher)
    sender = scene.submit(streaming=True)
    scene.dispatcher.close()
    assert "the model is being unloaded" in sender.errors[0]


def test_an_engine_that_cannot_load_says_why() -> None:
    def launch() -> Any:
        link = FakeLink()
        link.engine.send(LoadFailed("no weights"))
        return link

    dispatcher = Dispatcher(SETTINGS, launch, print)
    with pytest.raises(NotReadyError, match="no weights"):
        dispatcher.start()


# Engines that fill up, and engines that fall silent


def test_an_engine_that_guides_fill_is_replaced_and_nothing_fails(scene: Scene) -> None:
    old = scene.links[0]
    running = scene.submit("old", streaming=True)
    key = old.hear().key
    full = Census(guide_bytes=SETTINGS.max_guide_memory_mb << 20)
    old.engine.send(Batch([Progress(key, [5], [])], full))
    until(lambda: len(scene.links) == 2)
    still = scene.submit()
    assert isinstance(old.hear(), Submit)  # the other one is loading
    scene.links[1].engine.send(Ready(LIMITS))
    until(lambda: "the engine is ready again" in scene.log)
    fresh = scene.submit(streaming=True)
    fresh_key = scene.links[1].hear().key
    scene.dispatcher.stop("old")
    assert old.hear() == Cancel(key)
    old.engine.send(Batch([Progress(key, [6], [], END), Progress(key + 1, [7], [], END)], full))
    scene.links[1].engine.send(Batch([Progress(fresh_key, [8], [], END)], Census()))
    until(lambda: running.finals and still.finals and fresh.finals)
    assert (running.sent, still.sent, fresh.sent) == ([[5], [6]], [[7]], [[8]])
    until(lambda: old.ended)
    assert not scene.links[1].ended


def test_what_is_held_against_sources_goes_from_each_engine_to_the_next(scene: Scene) -> None:
    old = scene.links[0]
    latest = Standings((Standing("acme", kept_bytes=9.0, at=2.0),))
    full = Census(guide_bytes=SETTINGS.max_guide_memory_mb << 20)
    for message in (Standings((Standing("acme", at=1.0),)), latest, Batch([], full)):
        old.engine.send(message)
    until(lambda: len(scene.links) == 2)
    still = scene.submit()
    key = old.hear().key
    scene.links[1].engine.send(Ready(LIMITS))
    until(lambda: AGAIN in scene.log)
    assert scene.links[1].hear() == latest
    old.engine.send(Standings((Standing("other", at=3.0),)))  # of what it still runs
    old.engine.send(Batch([Progress(key, [5], [], END)], full))
    until(lambda: still.finals)
    scene.links[1].engine.close()
    until(lambda: len(scene.links) == 3)
    scene.links[2].engine.send(Ready(LIMITS))
    until(lambda: scene.log.count(AGAIN) == 2)
    assert scene.links[2].hear() == latest
    scene.submit()
    assert isinstance(scene.links[2].hear(), Submit)


def test_a_replaced_engine_that_dies_takes_only_its_own_along(scene: Scene) -> None:
    old = scene.links[0]
    lost = scene.submit()
    old.hear()
    old.engine.send(Batch([], Census(guide_bytes=SETTINGS.max_guide_memory_mb << 20)))
    until(lambda: len(scene.links) == 2)
    scene.links[1].engine.send(Ready(LIMITS))
    until(lambda: "the engine is ready again" in scene.log)
    kept = scene.submit()
    key = scene.links[1].hear().key
    old.engine.close()
    until(lambda: lost.finals)
    scene.links[1].engine.send(Batch([Progress(key, [8], [], END)], Census()))
    until(lambda: kept.finals)
    assert (len(lost.errors), kept.sent) == (1, [[8]])


def fall_silent(scene: Scene, *, alone: bool = False, keys: tuple[int, ...] = ()) -> None:
    """The current engine hangs in a step over these requests, and another takes its place."""
    count = len(scene.links)
    scene.links[-1].step = Step(keys, alone)
    scene.fall_silent()
    until(lambda: len(scene.links) == count + 1)
    assert not scene.dispatcher.well()
    scene.links[-1].engine.send(Ready(LIMITS))
    until(lambda: scene.log.count(AGAIN) == count)


def test_a_silent_engine_is_killed_and_replaced_and_a_guide_that_does_it_twice_kept_out(
    scene: Scene,
) -> None:
    assert scene.dispatcher.well()
    guide = ("regex", "slow")
    for _ in range(2):
        sender, waiting = scene.submit(guide=guide), scene.submit(guide=("regex", "waits"))
        fall_silent(scene, alone=True, keys=(scene.links[-1].hear().key,))
        until(lambda sender=sender, waiting=waiting: sender.finals and waiting.finals)  # type: ignore[misc]
        assert "the engine said nothing for" in sender.errors[0]
        assert "over the guide of another request" in waiting.errors[0]
    with pytest.raises(NotReadyError, match="its guide may be why"):
        scene.submit(guide=guide)
    scene.submit(guide=guide, source="another")
    scene.submit(guide=("regex", "waits"))
    assert scene.dispatcher.well()


def test_what_waits_while_an_engine_hangs_in_no_guided_step_is_no_suspect(scene: Scene) -> None:
    guide = ("regex", "waits")
    for _ in range(3):
        sender = scene.submit(guide=guide)
        fall_silent(scene)
        until(lambda sender=sender: sender.finals)  # type: ignore[misc]
    scene.submit(guide=guide)


@pytest.mark.parametrize("noted", [False, True])
def test_forms_of_others_are_asked_again_however_often_one_source_silences_an_engine(
    scene: Scene, *, noted: bool
) -> None:
    theirs = ("json_schema", "{}")
    for number in range(5):
        senders = (
            scene.submit(guide=theirs, source="other"),
            scene.submit(guide=("regex", str(number)), source="bad"),
        )
        keys = tuple(scene.links[-1].hear().key for _ in senders)
        fall_silent(scene, keys=keys if noted else keys[:1])
        until(lambda senders=senders: all(one.finals for one in senders))  # type: ignore[misc]
    scene.submit(guide=theirs, source="other")
    scene.submit(guide=theirs, source="third")


def test_a_form_that_one_source_brings_along_stays_allowed_for_others(scene: Scene) -> None:
    """Any form can be there when something is wrong, by the will of whoever makes it so."""
    common = ("regex", "(yes|no)")
    for number in range(2):
        senders = [
            scene.submit(guide=guide, source="bad") for guide in (common, ("regex", str(number)))
        ]
        fall_silent(scene, keys=tuple(scene.links[-1].hear().key for _ in senders))
        until(lambda senders=senders: all(one.finals for one in senders))  # type: ignore[misc]
    with pytest.raises(NotReadyError):
        scene.submit(guide=common, source="bad")
    scene.submit(guide=common, source="other")


def test_a_request_that_ends_before_it_ran_clears_nothing(scene: Scene) -> None:
    guide = ("regex", "slow")
    for _ in range(2):
        sender = scene.submit(guide=guide)
        scene.links[-1].hear()
        scene.news(Progress(scene.dispatcher._key, [], [], End()))
        until(lambda sender=sender: sender.finals)  # type: ignore[misc]
        scene.submit(guide=guide)
        fall_silent(scene, alone=True, keys=(scene.links[-1].hear().key,))
    with pytest.raises(NotReadyError):
        scene.submit(guide=guide)


# Engines that end over a guide


def die(scene: Scene, *, alone: bool, late: bool, keys: tuple[int, ...]) -> None:
    """The current engine ends in a step over these requests, and another is there."""
    count = len(scene.links)
    link = scene.links[-1]
    link.step, link.late = Step(keys, alone), late
    link.engine.close()
    until(lambda: len(scene.links) == count + 1)
    scene.links[-1].engine.send(Ready(LIMITS))
    until(lambda: scene.log.count(AGAIN) == count)


def test_a_guide_over_whose_step_an_engine_ended_is_refused_from_then_on(scene: Scene) -> None:
    bad = ("regex", "bad")
    guilty, plain = scene.submit(guide=bad), scene.submit()
    key = scene.links[0].hear().key
    die(scene, alone=True, late=True, keys=(key, 999))
    until(lambda: guilty.finals and plain.finals)
    assert guilty.errors == [TOO_SLOW]
    assert plain.errors[0].endswith("the engine is shutting down over the guide of another request")
    with pytest.raises(InvalidRequestError, match="too costly"):
        scene.submit(guide=bad)
    scene.submit(guide=("regex", "other"))


def test_of_several_guides_the_one_that_is_there_again_is_kept_out_for_a_while(
    scene: Scene,
) -> None:
    bad = ("regex", "bad")
    for name in ("one", "other"):
        senders = scene.submit(guide=bad), scene.submit(guide=("regex", name))
        keys = (scene.links[-1].hear().key, scene.links[-1].hear().key)
        die(scene, alone=False, late=True, keys=keys)
        until(lambda senders=senders: all(one.finals for one in senders))  # type: ignore[misc]
        assert all("the engine process ended" in one.errors[0] for one in senders)
    with pytest.raises(NotReadyError, match="its guide may be why"):
        scene.submit(guide=bad)
    scene.submit(guide=("regex", "other"))


def test_one_death_of_another_kind_is_nobodys_fault_and_an_answer_clears(scene: Scene) -> None:
    guide = ("regex", "a")
    for _ in range(3):
        scene.submit(guide=guide)
        die(scene, alone=True, late=False, keys=(scene.links[-1].hear().key,))
        answered = scene.submit(guide=guide)
        key = scene.links[-1].hear().key
        scene.links[-1].engine.send(Batch([Progress(key, [5], [], END)], Census()))
        until(lambda answered=answered: answered.finals)  # type: ignore[misc]
        assert answered.sent == [[5]]


def test_a_guide_that_an_engine_found_too_slow_is_refused_by_the_next_one_too(scene: Scene) -> None:
    guide = ("regex", "a")
    sender = scene.submit(guide=guide)
    scene.news(Progress(scene.links[0].hear().key, [], [], END._replace(error=TOO_SLOW)))
    until(lambda: sender.finals)
    assert sender.errors == [TOO_SLOW]
    with pytest.raises(InvalidRequestError, match="too costly"):
        scene.submit(guide=guide)


def test_who_brought_several_guilty_guides_has_known_ones_run_alone(scene: Scene) -> None:
    for number in range(3):
        senders = [scene.submit(guide=("regex", str(number)), source="many") for _ in range(2)]
        keys = [scene.links[-1].hear().key for _ in senders]
        if number < 2:
            end = END._replace(error=TOO_SLOW)
            scene.news(*[Progress(key, [], [], end) for key in keys])
        else:
            die(scene, alone=True, late=True, keys=tuple(keys))
        until(lambda senders=senders: all(one.finals for one in senders))  # type: ignore[misc]
        scene.submit(guide=("regex", "new"), source="many")
        assert scene.links[-1].hear().generation.known_only == (number == 2)
    for options in ({"source": "other", "guide": ("regex", "new")}, {"source": "many"}):
        scene.submit(**options)
        assert not scene.links[-1].hear().generation.known_only
