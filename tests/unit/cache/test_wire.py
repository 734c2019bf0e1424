"""Requests become what the cache decides about, and stay as they came."""

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import wire
from services.common.durations import duration_of

KEY = b"sixteen bytes or more"
WRITER = pb.Writer(tier="small", model="tiny-llm", precision="int4")


def storing() -> pb.StoreRequest:
    return pb.StoreRequest(
        route="support",
        request=pb.CanonicalRequest(turns=[pb.Turn(role="user", content="Which way?")]),
        ttl=duration_of(60),
        answer=pb.Answer(
            pieces=[pb.Piece(text="That way.", tokens=3)], finish_reason="stop", writer=WRITER
        ),
    )


def test_a_stored_answer_says_when_it_was_stored() -> None:
    _, record, ttl_seconds = wire.read_store(KEY, lambda: 1000.5, "acme", storing())
    stored = pb.Answer.FromString(record.answer)
    assert (stored.stored_at.seconds, stored.stored_at.nanos) == (1000, 500_000_000)
    assert stored.pieces == storing().answer.pieces
    assert ttl_seconds == 60


def test_reading_leaves_the_request_as_it_came() -> None:
    request = storing()
    wire.read_store(KEY, lambda: 1000.5, "acme", request)
    assert request == storing()
