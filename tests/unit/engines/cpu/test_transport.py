"""Messages over a socket that never blocks."""

import socket
from collections.abc import Iterator

import pytest

from engines.cpu.transport import ClosedError, Transport

Ends = tuple[Transport, Transport]


@pytest.fixture
def ends() -> Iterator[Ends]:
    left, right = (Transport(end) for end in socket.socketpair())
    yield left, right
    left.close()
    right.close()


def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    left, right = ends
    assert right.receive() == []
    for message in ("a", 2, [3.0]):
        left.send(message)
    assert right.receive() == ["a", 2, [3.0]]
    right.send("b")
    assert left.receive() == ["b"]


def test_sending_never_blocks_what_the_socket_does_not_take_is_kept(ends: Ends) -> None:
    left, right = ends
    large = [bytes([number]) * 1_000_000 for number in range(3)]
    for message in large:
        left.send(message)
    assert left.unsent
    got = []
    while left.unsent:
        got += right.receive()
        left.flush()
    got += right.receive()
    assert got == large


def test_the_last_words_are_read_before_the_end_is_noticed(ends: Ends) -> None:
    left, right = ends
    left.send("last")
    left.close()
    assert right.receive() == ["last"]
    with pytest.raises(ClosedError):
        right.receive()
    with pytest.raises(ClosedError):
        right.send("anyone?")
