"""Who is let in, and what callers see of errors, over real gRPC and for each shape of call."""

import asyncio
import gc
import hashlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from pennyweight.cache.v1 import cache_pb2
from pennyweight.router.v1 import router_pb2
from pennyweight.scaler.v1 import scaler_pb2
from services.common.credentials import Identity, Role
from services.common.errors import BadRequest, NotFound, Overloaded, Violation
from tests.integration.common.serving import KEY, Running, serving

Metadata = tuple[tuple[str, str], ...]
Call = Callable[[Running, Metadata], Awaitable[None]]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as one:
        yield one


async def unary(running: Running, metadata: Metadata) -> None:
    await running.complete(metadata=metadata)


async def server_stream(running: Running, metadata: Metadata) -> None:
    request = router_pb2.GenerateRequest(route="r")
    async for _ in running.router.Generate(request, metadata=metadata, timeout=10):
        pass


async def client_stream(running: Running, metadata: Metadata) -> None:
    requests = [scaler_pb2.ReportLoadRequest(), scaler_pb2.ReportLoadRequest()]
    answer = await running.scaler.ReportLoad(iter(requests), metadata=metadata, timeout=10)
    assert answer.accepted == 2


async def both_streams(running: Running, metadata: Metadata) -> None:
    requests = [cache_pb2.ExchangeRequest()]
    async for _ in running.cache.Exchange(iter(requests), metadata=metadata, timeout=10):
        pass


each_shape = pytest.mark.parametrize(
    "call", [unary, server_stream, client_stream, both_streams], ids=lambda call: call.__name__
)


async def failure(call: Call, running: Running, metadata: Metadata = KEY) -> grpc.aio.AioRpcError:
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(running, metadata)
        # A call that ends while its caller still writes may end in gRPC's own words there.
        if not (caught.value.details() or "").startswith("Internal error from Core"):
            break
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status: Any = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@each_shape
async def test_a_known_key_is_let_in(running: Running, call: Call) -> None:
    await call(running, KEY)
    assert running.shop.callers == [Identity("development", Role.SERVICE)]


@each_shape
async def test_a_call_without_a_key_is_refused(running: Running, call: Call) -> None:
    error = await failure(call, running, ())
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "KEY_MISSING"
    assert "authorization: Bearer <key>" in error.details()
    assert running.shop.callers == []


@each_shape
async def test_a_wrong_key_is_refused(running: Running, call: Call) -> None:
    error = await failure(call, running, (("authorization", "Bearer wrong"),))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "KEY_UNKNOWN"
    assert running.shop.callers == []


@each_shape
async def test_an_error_of_ours_becomes_its_status(running: Running, call: Call) -> None:
    async def refuse() -> None:
        raise Overloaded("the queue is full", reason="QUEUE_FULL", retry_after_seconds=2)

    running.shop.do = refuse
    error = await failure(call, running)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "the queue is full"
    assert reason_of(error) == "QUEUE_FULL"


@each_shape
async def test_an_unexpected_error_is_logged_and_not_shown(running: Running, call: Call) -> None:
    async def break_down() -> None:
        raise RuntimeError("secret inner state")

    running.shop.do = break_down
    with capture_logs() as logs:
        error = await failure(call, running)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in f"{error.details()}{error.trailing_metadata()}"
    assert error.details() == "internal error; the log of this service has the details"
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("unexpected error", "error")
    assert "break_down" in line["fault"]
    assert "secret" not in str(line)


@each_shape
@pytest.mark.parametrize("error", [NotFound("not here"), RuntimeError("not here")])
async def test_an_error_keeps_nothing_of_its_call(
    running: Running, call: Call, error: Exception
) -> None:
    class Request:
        pass

    kept: list[weakref.ref[Request]] = []

    async def refuse() -> None:
        request = Request()
        kept.append(weakref.ref(request))
        raise error

    running.shop.do = refuse
    gc.disable()
    try:
        await failure(call, running)
        assert [one() for one in kept] == [None]
    finally:
        gc.enable()


async def test_text_sent_before_an_error_stays_valid(running: Running) -> None:
    async def lose() -> None:
        raise NotFound("the replica is gone")

    running.shop.do = lose
    call = running.router.Generate(router_pb2.GenerateRequest(route="first"), metadata=KEY)
    assert (await call.read()).delta.text == "first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_bad_request_with_many_rules_still_arrives(running: Running) -> None:
    many = [Violation(f"prompt.messages[{i}].content", "is empty") for i in range(2000)]

    async def refuse() -> None:
        raise BadRequest.of(*many)

    running.shop.do = refuse
    error = await failure(unary, running)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "BAD_REQUEST"


async def test_a_message_that_cannot_be_read_is_the_callers_fault(running: Running) -> None:
    raw = running.channel.unary_unary("/pennyweight.router.v1.RouterService/Complete")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"\x0a\x02\xff\xff", metadata=KEY, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert running.shop.callers == []


async def test_a_stream_with_an_unreadable_message_is_the_callers_fault(running: Running) -> None:
    raw = running.channel.stream_unary("/pennyweight.scaler.v1.ScalerService/ReportLoad")
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(iter([b"", b"\x0a\x02\xff\xff"]), metadata=KEY, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert logs == []


async def test_a_message_of_far_too_many_parts_is_refused_and_the_fullest_is_not() -> None:
    fullest = router_pb2.CompleteRequest(route="r")
    for _ in range(8):  # four parts each, and one for each choice
        choices = router_pb2.Choices(values=["a choice"] * 1024)
        fullest.terms.validators.append(router_pb2.Validator(one_of=choices))
    for _ in range(1000):
        fullest.prompt.messages.add(role=router_pb2.ROLE_USER, content="Hello, who is there?")
    empty = router_pb2.CompleteRequest(route="r")
    for _ in range(20_000):
        empty.prompt.messages.add()
    async with serving() as running:
        answer = await running.router.Complete(fullest, metadata=KEY, timeout=10)
        assert answer.text == "r"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.router.Complete(empty, metadata=KEY, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than 16384 parts" in (caught.value.details() or "")
        assert len(running.shop.callers) == 1


async def test_a_message_that_is_too_large_is_refused() -> None:
    async with serving(max_message_bytes=2048) as running:
        assert await running.complete("x" * 1000) == "x" * 1000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.complete("x" * 3000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(running.shop.callers) == 1


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    call = running.channel.unary_unary("/pennyweight.router.v1.RouterService/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_key_file_decides_who_is_let_in(tmp_path: Path) -> None:
    digest = {key: hashlib.sha256(key.encode()).hexdigest() for key in ("a-key", "s-key")}
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys:\n  - {{sha256: {digest['a-key']}, tenant: acme}}\n"
        f"  - {{sha256: {digest['s-key']}, tenant: us, role: service}}\n"
    )
    async with serving(keys=path) as running:
        caller, service = (("authorization", "Bearer a-key"),), ("authorization", "Bearer s-key")
        acts_for = ("pennyweight-tenant", "acme")
        await running.complete(metadata=caller)
        await running.complete(metadata=(service, acts_for))
        assert running.shop.callers == [Identity("acme"), Identity("acme", Role.SERVICE)]
        development = await failure(unary, running, KEY)
        assert development.code() is grpc.StatusCode.UNAUTHENTICATED
        other = await failure(unary, running, (*caller, ("pennyweight-tenant", "other")))
        assert other.code() is grpc.StatusCode.PERMISSION_DENIED
        odd = await failure(unary, running, (service, ("pennyweight-tenant", "a/b")))
        assert odd.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_caller_who_hangs_up_ends_the_work(running: Running) -> None:
    running.shop.do = asyncio.Event().wait
    call = running.router.Generate(router_pb2.GenerateRequest(route="r"), metadata=KEY)
    await call.read()
    await running.shop.entered.wait()
    call.cancel()
    await asyncio.wait_for(running.shop.left.wait(), 5)


async def test_a_caller_who_hangs_up_without_reading_ends_the_work(running: Running) -> None:
    big = "x" * 1_000_000
    call = running.router.Generate(router_pb2.GenerateRequest(route=big), metadata=KEY)
    await call.initial_metadata()  # the server waits in its write now: nobody reads
    call.cancel()
    await asyncio.wait_for(running.shop.left.wait(), 5)
