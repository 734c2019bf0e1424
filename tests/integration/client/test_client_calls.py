"""The client against a scripted router over real gRPC."""

import asyncio
import contextlib
import time

import grpc
import pytest

import pennyweight as pw
from pennyweight import Client
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, NotFound, Overloaded, Unavailable, Violation
from tests.integration.client.scripted_router import DECISION, Stage, events, serve, summary


async def test_a_stream_comes_as_plain_events(stage: Stage) -> None:
    async with Client(stage.address) as client:
        got = [event async for event in client.generate("support-chat", "Where is my card?")]
    started, first, second, finished = got
    assert isinstance(started, pw.Started)
    assert started.handle == "h-1"
    assert started.decision.reason == "fixed_tier"
    assert started.decision.cache == "miss"
    assert first == pw.Delta("Your card ", 1)
    assert second == pw.Delta("usually reaches you.", 1)
    assert isinstance(finished, pw.Finished)
    assert finished.decision == started.decision
    assert finished.finish_reason == "stop"
    assert finished.usage == pw.Usage(21, 7, reused_prompt_tokens=None)
    assert finished.cost.saved_micro_usd == 37
    assert finished.timings == pw.Timings(
        first_text_seconds=None,
        total_seconds=0.125,
        queued_seconds=None,
        engine_seconds=pytest.approx(0.0805),
    )
    assert stage.router.tenants == ["development"]


async def test_options_reach_the_request(stage: Stage) -> None:
    async with Client(stage.address) as client:
        async for _ in client.generate(
            "support-chat",
            [
                pw.Message("system", "Be short."),
                pw.Message("user", "Hello"),
                pw.Message("assistant", "Hello."),
                pw.Message("user", "My card?"),
            ],
            max_output_tokens=40,
            temperature=0.5,
            top_p=0.9,
            top_k=5,
            seed=7,
            stop=["\n"],
            json_schema="{}",
            priority="batch",
            attributes={"team": "cards"},
            idempotency_key="order-7",
            cache_use="refresh",
        ):
            pass
    (request,) = stage.router.requests
    assert [one.role for one in request.prompt.messages] == [1, 2, 3, 2]
    assert request.prompt.response_format.json_schema == "{}"
    assert request.sampling == pb.Sampling(
        max_output_tokens=40, temperature=0.5, top_p=0.9, top_k=5, seed=7, stop=["\n"]
    )
    assert request.terms == pb.Terms(
        priority=pb.PRIORITY_CLASS_BATCH,
        attributes={"team": "cards"},
        idempotency_key="order-7",
        cache_use=pb.CACHE_USE_REFRESH,
    )


async def test_absent_options_stay_absent(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.ExplainResponse(decision=DECISION)]
    async with Client(stage.address) as client:
        await client.explain("support-chat", "Hello")
    assert stage.router.requests == [
        pb.ExplainRequest(
            route="support-chat",
            prompt=pb.Prompt(messages=[pb.Message(role=pb.ROLE_USER, content="Hello")]),
            sampling=pb.Sampling(),
            terms=pb.Terms(),
        )
    ]


async def test_complete_explain_and_list_routes(stage: Stage) -> None:
    async with Client(stage.address) as client:
        stage.router.script = lambda _: [pb.CompleteResponse(text="Soon.", summary=summary())]
        answer = await client.complete("support-chat", "Where is my card?")
        assert (answer.text, answer.summary.cost.micro_usd) == ("Soon.", 3)

        stage.router.script = lambda _: [
            pb.ExplainResponse(decision=DECISION, prompt_tokens=21, max_micro_usd=90)
        ]
        explanation = await client.explain("support-chat", "Where is my card?")
        assert (explanation.prompt_tokens, explanation.max_micro_usd) == (21, 90)
        assert explanation.decision.explanation == "The route's policy names this tier."

        route = pb.Route(name="support-chat", ladder=[pb.Tier(name="small", ready_replicas=2)])
        route.default_deadline.FromSeconds(20)
        stage.router.script = lambda _: [pb.ListRoutesResponse(routes=[route], policy_version="v1")]
        listed = await client.list_routes()
        assert listed.policy_version == "v1"
        assert listed.routes[0].ladder[0].ready_replicas == 2
        assert listed.routes[0].default_deadline_seconds == 20.0


async def test_errors_carry_their_details(stage: Stage) -> None:
    async with Client(stage.address) as client:
        stage.router.script = lambda _: [
            BadRequest.of(Violation("sampling.temperature", "must be at most 2"))
        ]
        with pytest.raises(pw.BadRequest) as bad:
            await client.complete("support-chat", "Hello", temperature=9)
        assert bad.value.violations == (pw.Violation("sampling.temperature", "must be at most 2"),)
        assert bad.value.reason == "BAD_REQUEST"

        stage.router.script = lambda _: [
            Overloaded("no room", reason="QUEUE_FULL", handle="h-9", retry_after_seconds=1.5)
        ]
        with pytest.raises(pw.Overloaded, match="no room") as busy:
            await client.complete("support-chat", "Hello")
        assert busy.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (busy.value.reason, busy.value.handle) == ("QUEUE_FULL", "h-9")
        assert busy.value.retry_after_seconds == 1.5
        assert len(stage.router.requests) == 2  # neither was tried again

        stage.router.script = lambda _: [NotFound("no route x", reason="ROUTE_UNKNOWN")]
        with pytest.raises(pw.NotFound):
            [event async for event in client.generate("x", "Hello")]

        stage.router.script = lambda _: [RuntimeError("a bug")]
        with pytest.raises(pw.InternalError):
            await client.list_routes()


async def test_a_wrong_key_is_refused(stage: Stage) -> None:
    async with Client(stage.address, api_key="wrong") as client:
        with pytest.raises(pw.Unauthenticated) as refused:
            await client.list_routes()
    assert refused.value.reason == "KEY_UNKNOWN"


async def test_unavailable_is_tried_again_until_it_works(stage: Stage) -> None:
    def twice(_: object) -> list[object]:
        if len(stage.router.requests) <= 2:
            return [Unavailable("starting")]
        return list(events("Hello"))

    stage.router.script = twice
    async with Client(stage.address) as client:
        got = [event async for event in client.generate("support-chat", "Hello")]
    assert isinstance(got[-1], pw.Finished)
    keys = {request.terms.idempotency_key for request in stage.router.requests}
    assert len(stage.router.requests) == 3
    assert len(keys) == 1  # the ledger can tell that the three are one request
    assert "" not in keys


async def test_tries_end_with_the_last_error(stage: Stage) -> None:
    again = Unavailable("starting", handle="h-3", retry_after_seconds=0.01)
    stage.router.script = lambda _: [again]
    async with Client(stage.address, max_attempts=2) as client:
        with pytest.raises(pw.Unavailable) as gone:
            await client.complete("support-chat", "Hello")
    assert gone.value.handle == "h-3"
    assert len(stage.router.requests) == 2


async def test_the_service_says_when_to_come_back(stage: Stage) -> None:
    stage.router.script = lambda _: (
        [Unavailable("starting", retry_after_seconds=0.4)]
        if len(stage.router.requests) == 1
        else [pb.CompleteResponse(text="Hello", summary=summary())]
    )
    began = time.monotonic()
    async with Client(stage.address) as client:
        await client.complete("support-chat", "Hello")
    assert time.monotonic() - began >= 0.4


async def test_no_try_that_the_deadline_forbids(stage: Stage) -> None:
    stage.router.script = lambda _: [Unavailable("starting", retry_after_seconds=30)]
    began = time.monotonic()
    async with Client(stage.address) as client:
        with pytest.raises(pw.Unavailable):
            await client.complete("support-chat", "Hello", timeout_seconds=5)
    assert time.monotonic() - began < 3
    assert len(stage.router.requests) == 1


async def test_nothing_is_tried_again_once_text_came(stage: Stage) -> None:
    stage.router.script = lambda _: [*events("Half an ")[:2], Unavailable("replica lost")]
    async with Client(stage.address) as client:
        stream = client.generate("support-chat", "Hello")
        assert isinstance(await anext(stream), pw.Started)
        assert await anext(stream) == pw.Delta("Half an ", 1)
        with pytest.raises(pw.Unavailable, match="replica lost"):
            await anext(stream)
    assert len(stage.router.requests) == 1


async def test_an_unfinished_stream_is_an_error(stage: Stage) -> None:
    stage.router.script = lambda _: events("Half an ")[:2]
    async with Client(stage.address) as client:
        with pytest.raises(pw.InternalError, match="unfinished"):
            [event async for event in client.generate("support-chat", "Hello")]


async def test_the_deadline_ends_a_silent_stream(stage: Stage) -> None:
    stage.router.script = lambda _: [asyncio.Event()]
    async with Client(stage.address) as client:
        with pytest.raises(pw.DeadlineExceeded):
            [e async for e in client.generate("support-chat", "Hello", timeout_seconds=0.2)]
    await asyncio.wait_for(stage.router.cancelled.wait(), 5)


async def test_breaking_out_cancels_the_call(stage: Stage) -> None:
    stage.router.script = lambda _: [*events("One ")[:2], asyncio.Event()]
    async with Client(stage.address) as client:
        async for event in client.generate("support-chat", "Hello"):
            if isinstance(event, pw.Delta):
                break
        await asyncio.wait_for(stage.router.cancelled.wait(), 5)


async def test_cancelling_the_task_cancels_the_call(stage: Stage) -> None:
    stage.router.script = lambda _: [*events("One ")[:2], asyncio.Event()]
    first = asyncio.Event()

    async def read(client: Client) -> None:
        async with contextlib.aclosing(client.generate("support-chat", "Hello")) as stream:
            async for _ in stream:
                first.set()

    async with Client(stage.address) as client:
        task = asyncio.create_task(read(client))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(stage.router.cancelled.wait(), 5)


async def test_cancelling_a_unary_call_cancels_it(stage: Stage) -> None:
    stage.router.script = lambda _: [asyncio.Event()]
    async with Client(stage.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.complete("support-chat", "Hello")
        await asyncio.wait_for(stage.router.cancelled.wait(), 5)


async def test_closing_the_client_ends_its_streams_with_our_error(stage: Stage) -> None:
    stage.router.script = lambda _: [*events("One ")[:2], asyncio.Event()]
    first = asyncio.Event()

    async def read(client: Client) -> None:
        async for _ in client.generate("support-chat", "Hello"):
            first.set()

    client = Client(stage.address)
    task = asyncio.create_task(read(client))
    await first.wait()
    await client.close()
    with pytest.raises(pw.PennyweightError, match="cancelled") as ended:
        await task
    assert ended.value.code is grpc.StatusCode.CANCELLED


async def test_nothing_at_the_address_is_unavailable() -> None:
    async with Client("127.0.0.1:1", max_attempts=2) as client:
        with pytest.raises(pw.Unavailable):
            await client.list_routes()


async def test_a_restarted_router_is_found_again(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.ListRoutesResponse(policy_version="v1")]
    async with Client(stage.address) as client:
        await client.list_routes()
        await stage.server.grpc.stop(0)
        call = asyncio.create_task(client.list_routes())
        again = serve(stage.router, stage.address)
        await again.start()
        assert (await call).policy_version == "v1"
        await again.grpc.stop(0)


@pytest.mark.parametrize("kind", ["whole", "streamed"])
async def test_a_router_that_is_away_for_seconds_is_waited_for(stage: Stage, kind: str) -> None:
    """Both what comes while it is away and what was running without an answer yet."""
    running = asyncio.Event()

    def silent(_: object) -> list[object]:
        running.set()
        return [asyncio.Event()]

    async def ask(client: Client) -> str:
        if kind == "whole":
            return (await client.complete("support-chat", "Hello")).text
        events = [event async for event in client.generate("support-chat", "Hello")]
        return "".join(event.text for event in events if isinstance(event, pw.Delta))

    stage.router.script = silent
    async with Client(stage.address, timeout_seconds=20) as client:
        early = asyncio.create_task(ask(client))
        await running.wait()
        await stage.server.grpc.stop(0)
        late = asyncio.create_task(ask(client))
        await asyncio.sleep(2.0)  # longer than any fixed number of quick tries takes
        stage.router.script = lambda _: (
            [pb.CompleteResponse(text="Hello", summary=summary())]
            if kind == "whole"
            else list(events("Hello"))
        )
        again = serve(stage.router, stage.address)
        await again.start()
        assert await asyncio.gather(early, late) == ["Hello", "Hello"]
        keys = [request.terms.idempotency_key for request in stage.router.requests]
        assert len(keys) == 3
        assert len(set(keys)) == 2  # the ledger can tell that one was asked twice
        await again.grpc.stop(0)


@pytest.mark.parametrize("kind", ["whole", "streamed"])
async def test_a_call_that_a_router_cancels_as_it_ends_is_tried_again(
    stage: Stage, kind: str
) -> None:
    whole = [pb.CompleteResponse(text="Hello", summary=summary())]
    good = whole if kind == "whole" else list(events("Hello"))
    ends: list[list[object]] = [[grpc.StatusCode.CANCELLED], [grpc.StatusCode.CANCELLED]]
    stage.router.script = lambda _: ends.pop() if ends else list(good)
    async with Client(stage.address) as client:
        if kind == "whole":
            assert (await client.complete("support-chat", "Hello")).text == "Hello"
        else:
            heard = [event async for event in client.generate("support-chat", "Hello")]
            assert isinstance(heard[-1], pw.Finished)
    assert len(stage.router.requests) == 3
    assert len({request.terms.idempotency_key for request in stage.router.requests}) == 1


async def test_one_that_a_router_never_answers_otherwise_is_unavailable(stage: Stage) -> None:
    stage.router.script = lambda _: [grpc.StatusCode.CANCELLED]
    async with Client(stage.address, max_attempts=2) as client:
        with pytest.raises(pw.Unavailable, match="ended the call before it said anything"):
            await client.complete("support-chat", "Hello")
    assert len(stage.router.requests) == 2


async def test_a_call_that_is_cancelled_after_its_first_words_is_not_tried_again(
    stage: Stage,
) -> None:
    stage.router.script = lambda _: [*events("One ")[:2], grpc.StatusCode.CANCELLED]
    async with Client(stage.address) as client:
        with pytest.raises(pw.PennyweightError) as ended:
            [event async for event in client.generate("support-chat", "Hello")]
    assert ended.value.code is grpc.StatusCode.CANCELLED
    assert len(stage.router.requests) == 1


async def test_closing_the_client_ends_a_call_of_which_nothing_came_for_good(stage: Stage) -> None:
    running = asyncio.Event()

    def silent(_: object) -> list[object]:
        running.set()
        return [asyncio.Event()]

    stage.router.script = silent
    client = Client(stage.address)
    call = asyncio.create_task(client.complete("support-chat", "Hello"))
    await running.wait()
    await client.close()
    with pytest.raises(pw.PennyweightError) as ended:
        await call
    assert ended.value.code is grpc.StatusCode.CANCELLED
    assert len(stage.router.requests) == 1


async def test_a_request_that_was_taken_is_not_tried_again_unasked(stage: Stage) -> None:
    stage.router.script = lambda _: [Unavailable("a replica was lost", handle="h-3")]
    async with Client(stage.address) as client:
        with pytest.raises(pw.Unavailable, match="a replica was lost"):
            await client.complete("support-chat", "Hello")
    assert len(stage.router.requests) == 1


async def test_what_is_too_large_is_said_with_its_size_and_the_limit(stage: Stage) -> None:
    async with Client(stage.address) as client:
        with pytest.raises(pw.BadRequest, match=r"request has 5,000,\d+ bytes.* 4,194,304"):
            await client.complete("support-chat", "x" * 5_000_000)
        assert stage.router.requests == []
        large = pb.CompleteResponse(text="x" * 5_000_000)
        stage.router.script = lambda _: [large]
        with pytest.raises(pw.PennyweightError, match=r"answer has 5,000,\d+ bytes") as refused:
            await client.complete("support-chat", "Hello")
    assert refused.value.reason == "ANSWER_TOO_LARGE"


async def test_a_slow_network_is_waited_for(stage: Stage) -> None:
    """A connection may take longer than the pause between two tries to connect."""
    stage.router.script = lambda _: [pb.ListRoutesResponse(policy_version="v1")]
    host, _, port = stage.address.rpartition(":")

    relayed = asyncio.Event()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await asyncio.sleep(0.3)
                target.write(data)
        target.close()
        with contextlib.suppress(ConnectionError):
            await target.wait_closed()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        relayed.set()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as far:
        port_of_far = far.sockets[0].getsockname()[1]
        async with Client(f"127.0.0.1:{port_of_far}", max_attempts=1) as client:
            assert (await client.list_routes()).policy_version == "v1"
        await relayed.wait()
