"""A replica that does what a test tells it: Triton's gRPC with TensorRT-LLM's tensors.

For faults that a real server will not produce on demand. A script is a list of steps; the replica
plays one for each request and notes what it received and when it was cancelled. Several requests
may share a stream, and a request with the ``stop`` tensor ends the one with its id. As a process of
its own, for benchmarks and for tests that kill it::

    python -m tests.integration.scripted_triton --port 8001 --tokens 64 --delay 0.005
"""

import argparse
import asyncio
import contextlib
import itertools
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

CALLBACK_ERROR_HEADER = "triton_grpc_error"


@dataclass(frozen=True)
class Say:
    """Sends one response with these tokens; an answer's last content response is final.

    `sure` is the log-probability of each of them, said to those who ask.
    """

    tokens: Sequence[int] = ()
    final: bool = False
    sure: float = -0.5


@dataclass(frozen=True)
class Wait:
    """Does nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Does nothing until the event is set, and says when a run has come so far."""

    until: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Refuse:
    """``error_message`` without a final flag, as for an error while the request is accepted."""

    message: str


@dataclass(frozen=True)
class Fail:
    """An error through the response callback: it bears a final flag.

    A caller that sent ``triton_grpc_error`` gets a true status instead, and the stream is closed.
    """

    message: str


@dataclass(frozen=True)
class Break:
    """Ends the whole stream with a gRPC status."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    message: str = "Socket closed"


Step = Say | Wait | Hold | Refuse | Fail | Break
Script = Sequence[Step]


def answer(
    tokens: Sequence[int],
    *,
    per_response: int = 1,
    delay: float = 0.0,
    empty_final: bool = False,
    sure: float = -0.5,
) -> list[Step]:
    """The script of a good answer."""
    chunks = [tokens[at : at + per_response] for at in range(0, len(tokens), per_response)]
    steps: list[Step] = []
    for number, chunk in enumerate(chunks, start=1):
        if delay:
            steps.append(Wait(delay))
        steps.append(Say(chunk, final=number == len(chunks) and not empty_final, sure=sure))
    return [*steps, Say(final=True)] if empty_final or not chunks else steps


@dataclass(eq=False)
class Received:
    """One request and what became of it. Times are monotonic seconds.

    Attributes:
        inputs: the tensors by name: numbers, texts, or lists where there are several.
        cancelled_at: when its caller cancelled it, by ending the call or by ``stop``.
        ended_at: when its script had been played to its end.
        sent: tokens sent so far.
        log_probs: of those.
    """

    id: str
    model: str
    inputs: dict[str, Any]
    outputs: list[str]
    parameters: dict[str, Any]
    metadata: dict[str, str | bytes]
    at: float
    cancelled_at: float | None = None
    ended_at: float | None = None
    sent: int = 0
    log_probs: list[float] = field(default_factory=list)

    @property
    def prompt(self) -> list[int]:
        """Its token ids."""
        return _many(self.inputs["input_ids"])


class ScriptedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A replica; `scripts` are for the next requests, `script` is for all others.

    Attributes:
        received: all requests so far.
        stops: ids that a ``stop`` request named, running or not.
        streams: streams opened so far.
        mute: a request that is stopped ends without a word of how far it came.
        open: streams that are open.
    """

    def __init__(self, script: Script | Callable[[Received], Script] = ()) -> None:
        self.script = script
        self.scripts: deque[Script] = deque()
        self.received: list[Received] = []
        self.stops: list[str] = []
        self.streams = 0
        self.mute = False
        self.open: set[_Stream] = set()
        self.on_received: Callable[[Received], None] = lambda _: None
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> list[Received]:
        """Requests neither ended nor cancelled."""
        return [one for one in self.received if one.ended_at is None and one.cancelled_at is None]

    async def start(self, port: int = 0) -> int:
        """Listens; returns the port."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return self.port

    async def stop(self, grace: float | None = None) -> None:
        """Stops listening; running requests are cut off after `grace` seconds."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    async def wait(self) -> None:
        """Serves until it is stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        return pb.ModelReadyResponse(ready=True)

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        self.streams += 1
        stream = _Stream(self, dict(context.invocation_metadata() or ()))
        self.open.add(stream)
        try:
            async for message in stream.serve(request_iterator):
                yield message
            if stream.broken is not None:
                await context.abort(stream.broken.code, stream.broken.message)
        finally:
            self.open.discard(stream)
            await stream.close()

    def next_script(self, received: Received) -> Script:
        """The script for a request."""
        if self.scripts:
            return self.scripts.popleft()
        return self.script(received) if callable(self.script) else self.script


class _Stream:
    """One call of ModelStreamInfer: its requests play side by side."""

    def __init__(self, triton: ScriptedTriton, metadata: dict[str, str | bytes]) -> None:
        self._triton = triton
        self._metadata = metadata
        self._outbox: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue()
        self._playing: dict[Received, asyncio.Task[None]] = {}
        self._held: dict[Received, list[int]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.broken: Break | None = None

    async def serve(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        self._reader = asyncio.create_task(self._read(requests))
        while (message := await self._outbox.get()) is not None:
            yield message

    async def close(self) -> None:
        """The call has ended: what still plays is cancelled."""
        tasks = [*self._playing.values(), *([self._reader] if self._reader else [])]
        for received in list(self._playing):
            self._cancelled(received)
        if self._reader is not None:
            self._reader.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        async for request in requests:
            received = _received(request, self._metadata)
            if received.inputs.get("stop"):
                self._stop(received)
                continue
            self._triton.received.append(received)
            self._triton.on_received(received)
            script = self._triton.next_script(received)
            self._playing[received] = asyncio.create_task(self._play(received, script))
        while self._playing:
            await asyncio.wait(self._playing.values())
        self._outbox.put_nowait(None)

    def _stop(self, stop: Received) -> None:
        """Ends the request of that id, on whichever stream it plays, and replies to the stop."""
        self._triton.stops.append(stop.id)
        for stream in self._triton.open:
            for received in [one for one in stream._playing if one.id == stop.id]:
                stream._last_response(received)
        self._send(stop, Say(final=True))

    def _last_response(self, received: Received) -> None:
        """What it has made so far, as the CPU engine says it; a mute one says nothing of it."""
        held = self._held.get(received, [])
        self._cancelled(received)
        if not self._triton.mute:
            self._send(received, Say(held, final=True))

    def _cancelled(self, received: Received) -> None:
        if received.cancelled_at is None and received.ended_at is None:
            received.cancelled_at = time.monotonic()
            self._playing[received].cancel()

    async def _play(self, received: Received, script: Script) -> None:
        held = self._held[received] = []
        try:
            for step in script:
                match step:
                    case Wait(seconds):
                        await asyncio.sleep(seconds)
                    case Hold(event, reached):
                        reached.set()
                        await event.wait()
                    case Say(tokens, final, sure) if not received.inputs["streaming"]:
                        held += tokens  # a whole answer comes at once
                        if final:
                            self._send(received, Say(held, final=True, sure=sure))
                    case Say():
                        self._send(received, step)
                    case _:
                        self._end_badly(received, step)
                        break
            received.ended_at = time.monotonic()
        finally:
            del self._playing[received]
            del self._held[received]

    def _end_badly(self, received: Received, step: Refuse | Fail | Break) -> None:
        if isinstance(step, Break):
            self._break(step)
        elif isinstance(step, Refuse):
            self._error(received, step.message, final=None)
        elif self._metadata.get(CALLBACK_ERROR_HEADER) == "true":
            self._break(Break(grpc.StatusCode.INTERNAL, step.message))
        else:
            self._error(received, step.message, final=True)

    def _break(self, step: Break) -> None:
        self.broken = step
        self._outbox.put_nowait(None)

    def _send(self, received: Received, say: Say) -> None:
        message = pb.ModelStreamInferResponse()
        response = message.infer_response
        response.model_name, response.id = received.model, received.id
        response.parameters["triton_final_response"].bool_param = say.final
        is_stop = bool(received.inputs.get("stop"))
        if say.final and not say.tokens and not is_stop and not _wants_empty_final(received):
            return
        count = len(say.tokens)
        received.sent += count
        received.log_probs += [say.sure] * count
        now = time.monotonic_ns()
        tensors = {
            "output_ids": ("INT32", [1, 1, count], struct.pack(f"<{count}i", *say.tokens)),
            "sequence_length": ("INT32", [1, 1], struct.pack("<i", count)),
            "kv_cache_reused_blocks": ("INT32", [1, 1], struct.pack("<i", 0)),
            "first_scheduled_time_ns": (
                "INT64",
                [1, 1],
                struct.pack("<q", int(received.at * 1e9)),
            ),
            "last_token_time_ns": ("INT64", [1, 1], struct.pack("<q", now)),
        }
        if received.inputs.get("return_log_probs"):  # the whole list so far, each time
            so_far = struct.pack(f"<{received.sent}f", *received.log_probs)
            tensors["output_log_probs"] = ("FP32", [1, 1, received.sent], so_far)
        for name in received.outputs if not is_stop else ():
            if name in tensors and (count or name == "sequence_length"):
                datatype, shape, raw = tensors[name]
                response.outputs.add(name=name, datatype=datatype, shape=shape)
                response.raw_output_contents.append(raw)
        self._outbox.put_nowait(message)

    def _error(self, received: Received, text: str, *, final: bool | None) -> None:
        message = pb.ModelStreamInferResponse(error_message=text)
        message.infer_response.id = received.id
        if final is not None:
            message.infer_response.parameters["triton_final_response"].bool_param = final
        self._outbox.put_nowait(message)


def _received(request: pb.ModelInferRequest, metadata: dict[str, str | bytes]) -> Received:
    inputs: dict[str, Any] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        values = _values(tensor.datatype, raw)
        size = 1
        for dimension in tensor.shape:
            size *= dimension
        assert size == len(values), f"{tensor.name}: {tensor.shape} but {len(values)} values"
        if list(tensor.shape) == [1, 2, len(values) // 2]:  # a word list: ids and their ends
            half = len(values) // 2
            inputs[tensor.name] = (values[:half], values[half:])
        else:
            inputs[tensor.name] = values[0] if len(values) == 1 else values
    return Received(
        id=request.id,
        model=request.model_name,
        inputs=inputs,
        outputs=[one.name for one in request.outputs],
        parameters={
            name: getattr(value, str(value.WhichOneof("parameter_choice")))
            for name, value in request.parameters.items()
        },
        metadata=metadata,
        at=time.monotonic(),
    )


FORMATS = {"INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f", "BOOL": "?"}


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        form = FORMATS[datatype]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw))
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return texts


def _many(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]


def _wants_empty_final(received: Received) -> bool:
    return bool(received.parameters.get("triton_enable_empty_final_response"))


async def _serve(options: argparse.Namespace) -> None:
    body = list(itertools.islice(itertools.cycle(range(options.first_id, 250)), options.tokens))

    def script(received: Received) -> Script:
        tokens = body[: received.inputs["request_output_len"]]
        return [
            Wait(options.first_delay),
            *answer(tokens, per_response=options.per_response, delay=options.delay),
        ]

    triton = ScriptedTriton(script)
    triton.on_received = lambda received: print(f"received {received.id}", flush=True)  # noqa: T201
    if options.quiet:
        triton.on_received = lambda _: None
    await triton.start(options.port)
    print(f"listening {triton.port}", flush=True)  # noqa: T201
    await triton.wait()


def main() -> None:
    """Runs one replica until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--per-response", type=int, default=1, help="tokens of a response")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each response")
    parser.add_argument("--first-delay", type=float, default=0.0, help="more before the first")
    parser.add_argument("--first-id", type=int, default=70, help="smallest token id that is sent")
    parser.add_argument("--quiet", action="store_true", help="do not name the requests received")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
