"""An answer comes back from the cache as it was stored, and nothing of a request is left out."""

from dataclasses import replace

import pytest

from pennyweight.cache.v1 import cache_pb2 as pb
from services.router.clients.cache_messages import read_answer, write_answer, write_request
from services.router.policy.prompts import Message
from services.router.ports import Asked, Finish, GuideKind, Written

WRITTEN = Written(
    pieces=(("Hel", 1), ("", 1), ("lo", 2)),
    finish=Finish.LENGTH,
    prompt_tokens=7,
    output_tokens=4,
    tier="small",
    model="tiny",
    precision="int8",
    policy_version="v1",
)
ASKED = Asked((Message("user", "hi"),), None, 8, 0.5, 0.9, 3, 1, ("stop",))


def test_an_answer_comes_back_as_it_was_stored() -> None:
    answer = pb.Answer()
    write_answer(answer, WRITTEN)
    assert read_answer(pb.Answer.FromString(answer.SerializeToString())) == WRITTEN


def requested(asked: Asked) -> bytes:
    request = pb.CanonicalRequest()
    write_request(request, asked)
    return request.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("system", "hi"),)},
        {"messages": (Message("user", "hi"), Message("user", "hi"))},
        {"guide": (GuideKind.REGEX, "a")},
        {"guide": (GuideKind.JSON_SCHEMA, "a")},
        {"max_output_tokens": 9},
        {"temperature": 0.6},
        {"top_p": 1.0},
        {"top_k": 0},
        {"seed": 0},
        {"seed": None},
        {"stop": ()},
        {"stop": ("stop", "stop")},
    ],
)
def test_whatever_can_change_an_answer_makes_another_request(change: dict[str, object]) -> None:
    changed = replace(ASKED, **change)  # type: ignore[arg-type]
    assert requested(changed) != requested(ASKED)
    assert requested(replace(ASKED)) == requested(ASKED)
