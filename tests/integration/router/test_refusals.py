"""What is refused, with which status, and where the details say why."""

import threading
import time
from typing import Any

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router import servicer
from services.router.evidence.handles import HandleSigner
from tests.integration.router.world import (
    PATIENCE,
    Caller,
    Refusal,
    World,
    asking,
    refusal,
    tokens,
    until,
)
from tests.integration.scripted_triton import Hold, Say

CODES = grpc.StatusCode


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"max_message_bytes": 20_000, "max_prompt_characters": 10_000}


def fields(told: Refusal) -> dict[str, str]:
    """Field and rule of each violation."""
    return {one.field: one.description for one in told.details["BadRequest"].field_violations}


async def test_an_unknown_route_is_not_found(caller: Caller) -> None:
    told = await caller.refused(asking("nowhere"))
    assert (told.code, told.reason) == (CODES.NOT_FOUND, "ROUTE_UNKNOWN")


async def test_a_route_of_others_is_not_told(world: World, caller: Caller) -> None:
    told = await caller.refused(asking("theirs"))
    assert (told.code, told.reason) == (CODES.NOT_FOUND, "ROUTE_UNKNOWN")
    await world.add("a")
    assert (await (await world.caller("umbrella")).ask(asking("theirs"))).text


def sampled(**told: Any) -> pb.GenerateRequest:
    return asking(sampling=pb.Sampling(**told))


def said(*messages: tuple[int, str]) -> pb.GenerateRequest:
    request = pb.GenerateRequest(route="chat")
    for role, content in messages:
        request.prompt.messages.add(role=role, content=content)
    return request


async def test_each_broken_rule_is_named_by_its_field(caller: Caller) -> None:
    user, system = pb.ROLE_USER, pb.ROLE_SYSTEM
    for request, field in (
        (said(), "prompt.messages"),
        (said((user, "")), "prompt.messages[0].content"),
        (said((user, "\n ")), "prompt.messages[0].content"),
        (said((user, "x" * 10_001)), "prompt.messages"),
        (said((0, "hi")), "prompt.messages[0].role"),
        (said((99, "hi")), "prompt.messages[0].role"),
        (said((user, "hi"), (system, "be kind"), (user, "hi")), "prompt.messages[1].role"),
        (said((user, "hi"), (pb.ROLE_ASSISTANT, "hi")), "prompt.messages"),
        (said((user, "many words " * 300)), "prompt"),  # more tokens than the model takes
        (sampled(max_output_tokens=-1), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=0), "sampling.max_output_tokens"),
        (sampled(max_output_tokens=2**31 - 1), "sampling.max_output_tokens"),
        (sampled(temperature=float("nan")), "sampling.temperature"),
    ):
        told = await caller.refused(request)
        assert told.code == CODES.INVALID_ARGUMENT, request
        assert list(fields(told)) == [field], request


async def test_all_broken_rules_are_named_at_once(caller: Caller) -> None:
    request = sampled(max_output_tokens=-1, temperature=9, stop=[""])
    told = await caller.refused(request)
    assert list(fields(told)) == [
        "sampling.max_output_tokens",
        "sampling.temperature",
        "sampling.stop[0]",
    ]


@pytest.mark.parametrize("method", ["Generate", "Complete", "Explain"])
async def test_a_message_that_is_not_utf_8_is_refused(caller: Caller, method: str) -> None:
    good = asking(content="MARK").SerializeToString()
    call = caller.channel.unary_stream if method == "Generate" else caller.channel.unary_unary
    path = f"/pennyweight.router.v1.RouterService/{method}"
    for bad in (good.replace(b"MARK", b"\xff\xfe\xc3("), good[:-1], b"\xff\xff"):
        sent = call(path)(bad, metadata=caller.metadata, timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (sent.read() if method == "Generate" else sent)
        told = refusal(caught.value)
        assert (told.code, told.reason) == (CODES.INVALID_ARGUMENT, "MALFORMED")


async def test_a_message_that_is_too_large_is_refused(caller: Caller) -> None:
    told = await caller.refused(asking(content="x" * 30_000))
    assert told.code == CODES.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("metadata", "code", "reason"),
    [
        ((), CODES.UNAUTHENTICATED, "KEY_MISSING"),
        ((("authorization", "Bearer wrong"),), CODES.UNAUTHENTICATED, "KEY_UNKNOWN"),
        ((("authorization", "Basic key-of-acme"),), CODES.UNAUTHENTICATED, "KEY_MISSING"),
        ((("authorization", "Bearer key-of-acme"),) * 2, CODES.UNAUTHENTICATED, "KEY_REPEATED"),
        (
            (("authorization", "Bearer key-of-acme"), ("pennyweight-tenant", "umbrella")),
            CODES.PERMISSION_DENIED,
            "TENANT_FORBIDDEN",
        ),
        (
            (("authorization", "Bearer pennyweight-development"),),
            CODES.UNAUTHENTICATED,
            "KEY_UNKNOWN",
        ),
    ],
)
async def test_a_stranger_is_refused(
    caller: Caller, metadata: Any, code: grpc.StatusCode, reason: str
) -> None:
    caller.metadata = metadata
    told = await caller.refused()
    assert (told.code, told.reason) == (code, reason)


async def test_a_deadline_too_short_for_the_route_is_refused_at_once(
    world: World, caller: Caller
) -> None:
    triton = await world.add("a")
    started = time.monotonic()
    told = await caller.refused(asking("brief"), seconds=0.15)
    assert told.code == CODES.DEADLINE_EXCEEDED
    assert time.monotonic() - started < PATIENCE / 2
    assert triton.received == []


async def test_of_a_request_whose_time_is_too_short_nothing_else_is_looked_at(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    inner = servicer.check

    def noted(request: Any, *given: Any, **named: Any) -> Any:
        checked.append(request.route)
        return inner(request, *given, **named)

    monkeypatch.setattr(servicer, "check", noted)
    told = await caller.refused(asking("slow", ""))  # breaks a rule too
    assert (told.code, told.reason) == (CODES.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
    assert checked == []
    other = await world.caller("umbrella")
    told = await other.refused(asking("slow"))
    assert (told.code, told.reason) == (CODES.NOT_FOUND, "ROUTE_UNKNOWN")  # whose it is not


async def test_without_a_deadline_the_default_of_the_route_holds(
    world: World, caller: Caller
) -> None:
    triton = await world.add("a", script=[Hold()])
    started = time.monotonic()
    told = await caller.refused(asking("brief"), seconds=None)
    assert told.code == CODES.DEADLINE_EXCEEDED
    assert 0.55 <= time.monotonic() - started < PATIENCE
    (record,) = await world.ledger(1)
    assert record["status"] == "DEADLINE_EXCEEDED"
    assert told.details["RequestInfo"].request_id == record["handle"]
    await until(lambda: triton.received[0].cancelled_at)


async def test_a_deadline_that_passes_in_the_middle_ends_the_answer(
    world: World, caller: Caller
) -> None:
    triton = await world.add("a", script=[Say(tokens("Hello")), Hold()])
    told = await caller.refused(asking("brief"), seconds=0.8)
    assert told.code == CODES.DEADLINE_EXCEEDED
    assert told.so_far.text == "Hello"
    await until(lambda: triton.received[0].cancelled_at)


async def test_an_error_bears_the_handle_of_its_request(world: World, caller: Caller) -> None:
    await world.add("a", script=[Hold()])
    told = await caller.refused(asking("brief"), seconds=None)
    (record,) = await world.ledger(1)
    handle = told.details["RequestInfo"].request_id
    signer = HandleSigner(b"a secret of the tests")
    named = signer.verify(handle, "acme", "brief")
    assert named is not None
    assert named.request_id == record["request_id"]


async def test_refusals_are_counted_by_known_routes_alone(world: World, caller: Caller) -> None:
    await caller.refused(asking("invented by a caller"))
    await caller.refused(sampled(max_output_tokens=0))
    told = await world.metrics()
    assert "invented" not in told
    assert 'requests_total{route="",status="NOT_FOUND",tier=""} 1.0' in told
    assert 'requests_total{route="chat",status="INVALID_ARGUMENT",tier=""} 1.0' in told


async def test_long_rules_are_checked_beside_other_requests(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    check = servicer.check

    def noted(*told: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        return check(*told, **more)

    monkeypatch.setattr(servicer, "check", noted)
    request = asking()
    request.terms.validators.add().regex = "(" * 1001
    told = await caller.refused(request)
    assert "terms.validators[0].regex" in fields(told)
    await caller.refused(asking("nowhere"))
    assert threads[0] != threads[1] == threading.get_ident()
