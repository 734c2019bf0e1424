"""Parts of messages, counted before anything is parsed."""

import random

import pytest
from google.protobuf.message import DecodeError

from pennyweight.router.v1 import router_pb2 as pb
from services.common.parts import NoMessage, Shape, counted, shape_of

SHAPE = shape_of(pb.CompleteRequest.FromString)
FULL = pb.CompleteRequest(
    route="support-chat",
    prompt=pb.Prompt(
        messages=[pb.Message(role=pb.ROLE_USER, content="Was it shipped? " * 20)],
        context=[pb.Passage(text="It was.", relevance=0.5)],
    ),
    sampling=pb.Sampling(seed=2**40, top_p=0.5, stop=["a", "b"]),
    terms=pb.Terms(
        attributes={"team": "shop"},
        validators=[pb.Validator(one_of=pb.Choices(values=["yes", "no"]))],
        signals=pb.Signals(retrieval_confidence=0.25),
    ),
)


def count(data: bytes, shape: Shape = SHAPE) -> int:
    return sum(1 for _ in counted(data, shape, 1)) + bool(data)


def sized(field: int, data: bytes) -> bytes:
    size = len(data)
    return bytes((field << 3 | 2, 128 | size & 127, 128 | size >> 7 & 127, size >> 14)) + data


def test_each_field_counts_at_every_depth() -> None:
    # route; prompt, 1 message of 2, 1 passage of 2; sampling of 4; terms, 1 attribute of 2,
    # 1 validator of 1 with 2 values, signals of 1
    assert count(FULL.SerializeToString()) == 1 + 1 + 3 + 3 + 1 + 4 + 1 + 3 + 4 + 2
    assert count(b"") == 0
    assert shape_of(len) == {}


@pytest.mark.parametrize(
    "many",
    [
        sized(2, b"\x0a\x00" * 100),
        b"\x12\x00" * 101,
        sized(4, sized(6, sized(3, b"\x0a\x00" * 98))),
        b"\xf8\x07\x01" * 101,
        b"\xfb\x07" * 51 + b"\xfc\x07" * 50 + b"\xfc\x07",
        sized(3, b"\x19" + bytes(8) + b"\x15" + bytes(4) + b"\x32\x00" * 98),
    ],
    ids=["messages", "prompts", "choices", "unknown", "groups", "fixed"],
)
def test_parts_count_whatever_they_are(many: bytes) -> None:
    assert count(many) in (101, 102)
    assert list(counted(many, SHAPE, 40)) == [40, 80]


def test_what_is_no_field_of_ours_is_not_looked_into() -> None:
    assert count(sized(15, b"\x12\x00" * 100)) == 1
    assert count(sized(1, b"\x12\x00" * 100)) == 1
    assert count(b"\xfb\x07" + b"\x12\x02\xff\xff" + b"\xfc\x07") == 3


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",
        b"\x12\x05abc",
        b"\x12\x04\x0a\x04ab",
        b"\x08",
        b"\x08" + b"\xff" * 11,
        b"\x0f",
        b"\x0c",
        b"\x0b",
        b"\x15ab",
        b"\x11ab",
    ],
)
def test_what_is_no_message_is_none(data: bytes) -> None:
    with pytest.raises(NoMessage):
        count(data)
    with pytest.raises(DecodeError):
        pb.CompleteRequest.FromString(data)


def test_whatever_can_be_parsed_can_be_counted() -> None:
    draw, whole = random.Random(11), FULL.SerializeToString()
    parsed = 0
    for _ in range(4000):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(data))
            if draw.random() < 0.7:
                data[at] = draw.randrange(256)
            else:
                del data[at : at + draw.randrange(1, 6)]
        try:
            pb.CompleteRequest.FromString(bytes(data))
        except DecodeError:
            continue
        parsed += 1
        count(bytes(data))  # raises nothing
    assert parsed > 100
