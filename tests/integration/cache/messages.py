"""Requests and answers of the cache's tests."""

from pennyweight.cache.v1 import cache_pb2 as pb
from services.common.durations import duration_of

SMALL = pb.Writer(tier="small", model="tiny-llm", precision="int4", policy_version="1")
LARGE = pb.Writer(tier="large", model="big-llm", precision="int8", policy_version="1")


def canonical(text: str = "What is a pennyweight?", **changes) -> pb.CanonicalRequest:
    fields = {"max_output_tokens": 64, "top_p": 1.0} | changes
    return pb.CanonicalRequest(turns=[pb.Turn(role="user", content=text)], **fields)


def lookup(text: str = "What is a pennyweight?", *, wait: float = 0, **changes) -> pb.LookupRequest:
    fields = {"route": "support", "accepted_writers": [SMALL], "lease": True} | changes
    return pb.LookupRequest(request=canonical(text), max_wait=duration_of(wait), **fields)


def answer(text: str = "A unit of mass.", writer: pb.Writer = SMALL, **changes) -> pb.Answer:
    pieces = [pb.Piece(text=f"{word} ", tokens=1) for word in text.split()]
    fields = {"finish_reason": "stop", "prompt_tokens": 9, "output_tokens": len(pieces)} | changes
    return pb.Answer(pieces=pieces, writer=writer, **fields)


def store(
    lease: str = "", text: str = "What is a pennyweight?", *, ttl: float = 3600, **changes
) -> pb.StoreRequest:
    fields = {"route": "support", "answer": answer()} | changes
    request = None if lease else canonical(text)
    return pb.StoreRequest(lease=lease, request=request, ttl=duration_of(ttl), **fields)


def abandon(lease: str, **changes) -> pb.AbandonRequest:
    return pb.AbandonRequest(**({"route": "support", "lease": lease} | changes))
