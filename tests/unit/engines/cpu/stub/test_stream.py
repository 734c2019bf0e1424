"""A sender gets one last response, and nothing while or after it."""

import pytest

from engines.cpu.messages import End, Progress
from engines.cpu.request import Generation
from engines.cpu.stub.answer import Answer, Payload
from engines.cpu.stub.stream import Stream


class Calls(list[str]):
    """A sender that notes its calls; one named in `trouble` raises."""

    trouble = ""
    cancelled = False

    def _note(self, call: str) -> None:
        self.append(call)
        if call == self.trouble:
            raise RuntimeError(call)

    def send(self, payload: Payload, *, final: bool) -> None:
        self._note("last" if final else "send")

    def fail(self, text: str) -> None:
        self._note("fail")

    def end(self) -> None:
        self._note("end")

    def is_cancelled(self) -> bool:
        self._note("ask")
        return self.cancelled


def stream_of(calls: Calls) -> Stream:
    return Stream("", calls, Answer(Generation((1,), 9, streaming=True), 1))


def add(stream: Stream, *tokens: int, end: End | None = None) -> None:
    stream.answer.add(Progress(1, [*tokens], [], end))


def use_up(stream: Stream) -> None:
    """Everything that could touch the sender again."""
    stream.send(3.0)
    stream.fail("too late")
    assert not stream.just_cancelled()


def test_pieces_then_the_last_response_and_no_more() -> None:
    calls = Calls()
    stream = stream_of(calls)
    add(stream, 5)
    stream.send(1.0)
    add(stream, 6, end=End())
    stream.send(2.0)
    use_up(stream)
    assert calls == ["send", "last"]


@pytest.mark.parametrize(("end", "trouble"), [(End(), "last"), (End("no"), "fail")])
def test_a_last_response_that_fails_is_not_tried_again(end: End, trouble: str) -> None:
    calls = Calls()
    calls.trouble = trouble
    stream = stream_of(calls)
    add(stream, 5, end=end)
    with pytest.raises(RuntimeError):
        stream.send(1.0)
    use_up(stream)
    assert calls == [trouble]


def test_a_caller_who_left_gets_the_end_alone_and_is_not_asked_again() -> None:
    calls = Calls()
    calls.cancelled = True
    stream = stream_of(calls)
    assert stream.just_cancelled()
    assert not stream.just_cancelled()
    add(stream, 5)
    assert stream.due_at(0.0) is None
    add(stream, 6, end=End())
    assert stream.due_at(0.0) == 0.0
    stream.send(1.0)
    use_up(stream)
    assert calls == ["ask", "end"]


def test_after_an_error_nothing_is_due_until_the_engine_is_through() -> None:
    calls = Calls()
    stream = stream_of(calls)
    stream.fail("lost")
    add(stream, 5)
    assert stream.due_at(0.0) is None
    add(stream, end=End())
    assert stream.due_at(0.0) == 0.0
    use_up(stream)
    assert calls == ["fail"]
