"""Requests become what the cache decides about, and stay as they came."""

import pytest

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import wire
from services.common.durations import duration_of
from services.common.errors import BadRequest

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


def test_too_many_of_anything_is_refused_before_anything_is_made_of_each() -> None:
    lookup = pb.LookupRequest(route="support", accepted_writers=[WRITER] * 2000)
    lookup.request.turns.extend([pb.Turn()] * 5000)
    lookup.request.stop.extend([""] * 100)
    with pytest.raises(BadRequest) as caught:
        wire.read_lookup(KEY, "acme", lookup)
    assert {broken.name: broken.rule for broken in caught.value.violations} == {
        "accepted_writers": "at most 1024, got 2000",
        "request.turns": "at most 4096, got 5000",
        "request.stop": "at most 64, got 100",
    }
