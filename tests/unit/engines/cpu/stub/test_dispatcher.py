"""News from the engine become responses; a dead engine ends its requests and is replaced."""

import socket
import threading
import time

import pytest

from engines.cpu.messages import Batch, Cancel, Census, End, LoadFailed, Progress, Ready, Submit
from engines.cpu.request import Generation, Limits
from engines.cpu.settings import Settings
from engines.cpu.stub.dispatcher import Dispatcher, NotReadyError
from engines.cpu.transport import Transport

LIMITS = Limits(vocabulary=100, max_seq_len=64, total_blocks=4, block_size=32)
SETTINGS = Settings(model="m", cancellation_check_period_ms=1, stats_check_period_ms=10)


class FakeLink:
    """An engine process played by the test: `engine` is its end of the socket pair."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.transport, self.engine = Transport(ours), Transport(theirs)
        self.ended = False

    def hear(self):
        """The next message from the dispatcher."""
        until(self.refill)
        return self.inbox.pop(0)

    inbox: list[object]

    def refill(self):
        self.inbox = getattr(self, "inbox", [])
        self.inbox += self.engine.receive()
        return self.inbox

    def quit(self):
        self.ended = True
        self.transport.close()
        self.engine.close()

    def reap(self):
        self.quit()
        return "signal 9"


class FakeSender:
    """Remembers, and refuses what would crash the server."""

    def __init__(self):
        self.sent: list[list[int]] = []
        self.errors: list[str] = []
        self.finals = 0
        self.cancelled = False
        self.thread: int | None = None

    def touch(self):
        assert self.finals == 0, "used after its last response"
        assert self.thread in (None, threading.get_ident()), "used by two threads"
        self.thread = threading.get_ident()

    def send(self, payload, *, final):
        self.touch()
        self.sent.append(payload["output_ids"][0, 0].tolist())
        self.finals += final

    def fail(self, text):
        self.touch()
        self.errors.append(text)
        self.finals += 1

    def end(self):
        self.touch()
        self.finals += 1

    def is_cancelled(self):
        self.touch()
        return self.cancelled


class FakePublisher:
    def __init__(self):
        self.published: list[tuple[Census, int]] = []
        self.observed: list[tuple[int, int]] = []

    def publish(self, census, active):
        self.published.append((census, active))

    def observe(self, input_tokens, output_tokens):
        self.observed.append((input_tokens, output_tokens))


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.0005)


class Scene:
    def __init__(self):
        self.links: list[FakeLink] = []
        self.log: list[str] = []
        self.publisher = FakePublisher()
        self.dispatcher = Dispatcher(SETTINGS, self.launch, self.log.append)

    def launch(self):
        link = FakeLink()
        self.links.append(link)
        if len(self.links) == 1:
            link.engine.send(Ready(LIMITS))
        return link

    def submit(self, request_id="", **options):
        sender = FakeSender()
        generation = Generation(prompt=(1, 2), max_new_tokens=9, **options)
        self.dispatcher.submit(request_id, generation, sender, 1)
        return sender


@pytest.fixture
def scene():
    scene = Scene()
    assert scene.dispatcher.start() == LIMITS
    scene.dispatcher.serve(scene.publisher)
    yield scene
    scene.dispatcher.close()
    assert all(link.ended for link in scene.links)


def test_tokens_go_to_their_callers_until_the_end(scene):
    first, second = scene.submit(streaming=True), scene.submit()
    link = scene.links[0]
    keys = [link.hear().key, link.hear().key]
    census = Census(iterations=1, running=2)
    link.engine.send(Batch([Progress(key, [5], []) for key in keys], census))
    until(lambda: first.sent == [[5]])
    link.engine.send(Batch([Progress(key, [6], [], End()) for key in keys], census))
    until(lambda: first.finals and second.finals)
    assert first.sent == [[5], [6]]
    assert second.sent == [[5, 6]]
    until(lambda: scene.publisher.published[-1:] == [(census, 0)])
    assert scene.publisher.observed == [(2, 2), (2, 2)]


def test_an_error_of_one_request_is_its_own(scene):
    sender = scene.submit(streaming=True)
    key = scene.links[0].hear().key
    scene.links[0].engine.send(Batch([Progress(key, [], [], End("no"))], Census()))
    until(lambda: sender.finals)
    assert sender.errors == ["no"]


def test_a_caller_who_leaves_ends_the_request(scene):
    sender = scene.submit(streaming=True)
    link = scene.links[0]
    key = link.hear().key
    sender.cancelled = True
    assert link.hear() == Cancel(key)
    link.engine.send(Batch([Progress(key, [5], [], End())], Census()))
    until(lambda: sender.finals)
    assert sender.sent == []


def test_stop_ends_all_requests_of_that_id(scene):
    scene.submit("a")
    scene.submit("a")
    scene.submit("b")
    link = scene.links[0]
    keys = [link.hear().key for _ in range(3)]
    scene.dispatcher.stop("a")
    assert [link.hear(), link.hear()] == [Cancel(keys[0]), Cancel(keys[1])]
    assert not link.refill()


def test_a_dead_engine_fails_its_requests_at_once_and_is_replaced(scene):
    senders = [scene.submit(streaming=True) for _ in range(20)]
    scene.links[0].engine.close()
    began = time.monotonic()
    until(lambda: all(sender.finals for sender in senders))
    assert time.monotonic() - began < 0.1
    assert senders[4].errors == [
        "Executor failed process requestId 5 due to the following error: the engine process ended"
    ]
    until(lambda: len(scene.links) == 2)
    with pytest.raises(NotReadyError, match="not at ready state"):
        scene.submit()
    scene.links[1].engine.send(Ready(LIMITS))
    until(lambda: "the engine is ready again" in scene.log)
    scene.submit()
    assert isinstance(scene.links[1].hear(), Submit)


def test_trouble_in_the_thread_fails_all_and_starts_anew(scene):
    sender = scene.submit(streaming=True)
    link = scene.links[0]
    link.hear()
    link.engine.send(Batch(None, Census()))  # not iterable: an error nobody foresaw
    until(lambda: sender.finals)
    assert "internal error" in sender.errors[0]
    until(lambda: len(scene.links) == 2)


def test_a_caller_who_cannot_be_reached_does_not_hurt_others(scene):
    lost, other = scene.submit(streaming=True), scene.submit(streaming=True)
    link = scene.links[0]
    keys = [link.hear().key, link.hear().key]

    def refuse(payload, *, final):
        raise RuntimeError("cannot send")

    lost.send = refuse
    link.engine.send(Batch([Progress(key, [5], []) for key in keys], Census()))
    until(lambda: other.sent == [[5]] and lost.finals)
    assert link.hear() == Cancel(keys[0])


def test_closing_fails_what_still_runs():
    scene = Scene()
    scene.dispatcher.start()
    scene.dispatcher.serve(scene.publisher)
    sender = scene.submit(streaming=True)
    scene.dispatcher.close()
    assert "the model is being unloaded" in sender.errors[0]


def test_an_engine_that_cannot_load_says_why():
    def launch():
        link = FakeLink()
        link.engine.send(LoadFailed("no weights"))
        return link

    dispatcher = Dispatcher(SETTINGS, launch, print)
    with pytest.raises(NotReadyError, match="no weights"):
        dispatcher.start()
