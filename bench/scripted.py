"""A scripted replica and the scaler that tells of it: ``python -m bench.scripted``.

Answers every request at once with the same text, whole or in pieces, so that a benchmark measures
what stands in front of it. Prints its addresses as one line of JSON and runs until SIGTERM.
"""

import argparse
import asyncio
import json
import signal
import struct
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvloop
from tokenizers import Tokenizer
from tritonclient.grpc import service_pb2

from bench.http2 import ServerConnection, message
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc

TEXT = "Your card was declined because the daily limit was reached. You can raise it in the app. "


class Script:
    """The messages of an answer, made once for each length of a request's id."""

    def __init__(self, tokens: list[int], pieces: int) -> None:
        self._tokens = tokens
        per = -(-len(tokens) // pieces)
        self._cut = [tokens[at : at + per] for at in range(0, len(tokens), per)]
        self._made: dict[tuple[int, bool], list[bytes]] = {}

    def messages(self, request_id: str, *, streamed: bool) -> list[bytes]:
        """The messages that answer a request."""
        key = len(request_id), streamed
        made = self._made.get(key)
        if made is None:
            cut = self._cut if streamed else [self._tokens]
            made = self._made[key] = [
                message(_response(_stand_in(len(request_id)), one, final=number == len(cut) - 1))
                for number, one in enumerate(cut)
            ]
        mark, name = _stand_in(len(request_id)).encode(), request_id.encode()
        return [one.replace(mark, name, 1) for one in made]


class Replica:
    """Serves the script; streams get a message each in turns, as an engine's steps give them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._running: list[tuple[ServerConnection, int, deque[bytes]]] = []
        self._wake = asyncio.Event()

    def connection(self) -> ServerConnection:
        """A new connection's protocol."""
        return ServerConnection(self._answer)

    def _answer(self, connection: ServerConnection, stream: int, request: bytes) -> None:
        asked = service_pb2.ModelInferRequest.FromString(request)
        streamed, stopped = _flags(asked)
        if stopped:
            connection.open[stream] -= 1  # what it stops has been answered or will be
            return
        messages = self._script.messages(asked.id, streamed=streamed)
        if streamed:
            self._running.append((connection, stream, deque(messages)))
            self._wake.set()
        else:
            connection.respond(stream, messages[0], last=True)

    async def run(self) -> None:
        """Steps: every running stream gets its next message, unless its reader is behind."""
        while True:
            await self._wake.wait()
            self._running = [one for one in self._running if one[0].blocked or self._step(*one)]
            if not self._running:
                self._wake.clear()
            await asyncio.sleep(0)

    def _step(self, connection: ServerConnection, stream: int, left: deque[bytes]) -> bool:
        """Sends the next message; False after the last, or when the stream is gone."""
        connection.respond(stream, left.popleft(), last=not left)
        return bool(left) and stream in connection.open


class Scaler(scaler_pb2_grpc.ScalerServiceServicer):
    """Tells of one ready replica and takes load reports."""

    def __init__(self, replica: pb.Replica) -> None:
        self._replica = replica

    async def WatchReplicas(  # noqa: N802
        self,
        request: pb.WatchReplicasRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[pb.WatchReplicasResponse]:
        """The fleet, then signs of life."""
        yield pb.WatchReplicasResponse(full=True, replicas=[self._replica], revision=1)
        while True:
            await asyncio.sleep(3)
            yield pb.WatchReplicasResponse(revision=1)

    async def ReportLoad(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.ReportLoadRequest],
        context: Any,  # noqa: ARG002
    ) -> pb.ReportLoadResponse:
        """Reads and forgets."""
        count = 0
        async for _ in request_iterator:
            count += 1
        return pb.ReportLoadResponse(accepted=count)

    async def ListPools(  # noqa: N802
        self,
        request: pb.ListPoolsRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> pb.ListPoolsResponse:
        """Nobody asks for them."""
        return pb.ListPoolsResponse()


def _stand_in(length: int) -> str:
    return "\1" * length


def _response(request_id: str, tokens: list[int], *, final: bool) -> bytes:
    """A message as Triton sends it for the CPU engine."""
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version, response.id = "scripted", "1", request_id
    response.parameters["triton_final_response"].bool_param = final
    tensors: list[tuple[str, str, tuple[int, ...], bytes]] = [
        ("output_ids", "INT32", (1, 1, len(tokens)), struct.pack(f"<{len(tokens)}i", *tokens)),
        ("sequence_length", "INT32", (1, 1), struct.pack("<i", len(tokens))),
    ]
    if final:
        tensors += [
            ("kv_cache_reused_blocks", "INT32", (1, 1), struct.pack("<i", 0)),
            ("first_scheduled_time_ns", "INT64", (1, 1), struct.pack("<q", 1_000_000_000)),
            ("last_token_time_ns", "INT64", (1, 1), struct.pack("<q", 1_010_000_000)),
        ]
    for name, datatype, shape, raw in tensors:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return bytes(message.SerializeToString())


def _flags(asked: service_pb2.ModelInferRequest) -> tuple[bool, bool]:
    """Whether the answer is to be streamed, and whether this only stops another request."""
    flags = {
        declared.name: bool(raw[0])
        for declared, raw in zip(asked.inputs, asked.raw_input_contents, strict=False)
        if declared.name in ("streaming", "stop")
    }
    return flags.get("streaming", False), flags.get("stop", False)


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until SIGTERM."""
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
    text = TEXT * (1 + arguments.tokens // 8)
    tokens = tokenizer.encode(text, add_special_tokens=False).ids[: arguments.tokens]
    replica = Replica(Script(tokens, arguments.pieces))
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(replica.connection, "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    message = pb.Replica(
        id="scripted-1",
        pool="scripted",
        tier="scripted",
        model="scripted",
        precision="none",
        address=address,
        state=pb.REPLICA_STATE_READY,
        max_in_flight=1024,
        capacity=pb.CAPACITY_KIND_ON_DEMAND,
    )
    server = grpc.aio.server()
    scaler = Scaler(message)  # type: ignore[abstract]  # what nobody calls here is not answered
    scaler_pb2_grpc.add_ScalerServiceServicer_to_server(scaler, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"replica": address, "scaler": f"127.0.0.1:{port}"}), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    stepping = asyncio.create_task(replica.run())
    await stop.wait()
    stepping.cancel()
    listener.close()
    await server.stop(0)


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m bench.scripted")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--pieces", type=int, default=64, help="messages of a streamed answer")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
