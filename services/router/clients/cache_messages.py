"""Requests and answers as the cache's messages have them."""

from pennyweight.cache.v1 import cache_pb2 as pb
from services.router.ports import Asked, Finish, Written


def write_request(request: pb.CanonicalRequest, asked: Asked) -> None:
    """Fills in everything that can change an answer."""
    for message in asked.messages:
        request.turns.add(role=message.role, content=message.content)
    if asked.guide is not None:
        request.response_format = f"{asked.guide[0].value}:{asked.guide[1]}"
    request.max_output_tokens = asked.max_output_tokens
    request.temperature = asked.temperature
    request.top_p = asked.top_p
    request.top_k = asked.top_k
    if asked.seed is not None:
        request.seed = asked.seed
    request.stop.extend(asked.stop)


def write_answer(answer: pb.Answer, written: Written) -> None:
    """Fills in an answer and who wrote it."""
    for text, tokens in written.pieces:
        answer.pieces.add(text=text, tokens=tokens)
    answer.finish_reason = written.finish.value
    answer.prompt_tokens = written.prompt_tokens
    answer.output_tokens = written.output_tokens
    writer = answer.writer
    writer.tier, writer.model = written.tier, written.model
    writer.precision, writer.policy_version = written.precision, written.policy_version


def read_answer(answer: pb.Answer) -> Written:
    """A stored answer."""
    writer = answer.writer
    return Written(
        pieces=tuple((piece.text, piece.tokens) for piece in answer.pieces),
        finish=Finish(answer.finish_reason),
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        tier=writer.tier,
        model=writer.model,
        precision=writer.precision,
        policy_version=writer.policy_version,
    )
