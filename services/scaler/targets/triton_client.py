"""Asks a replica's Triton server how it is: readiness over gRPC, running requests from `/metrics`.

Triton says of a model that it is ready as long as its process lives, also of one whose engine
stands still. So an engine that takes TensorRT-LLM's ``stop`` is asked itself: to stop a request
that does not exist, which it answers at once.

Every call has a deadline, and no answer is an answer: False, or None for "not known".
"""

import asyncio
import http.client
import secrets
from collections.abc import Sequence
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.channel import NO_PROXY
from services.common.lengths import is_length_refusal

CALL_SECONDS = 1.0

_EXITING = "server exiting"
_REFUSED = "connection refused"
_ENGINE = "nv_trt_llm_request_metrics"
_QUEUE = "nv_inference_pending_request_count"


class TritonClient:
    """One server. `host` is where this machine reaches it.

    Attributes:
        exits: the last time it was asked whether it is ready it said that it exits, or nobody
            listened any more: that is no silence, and does not pass.
    """

    def __init__(self, host: str, grpc_port: int, metrics_port: int, model: str) -> None:
        self._metrics = (host, metrics_port)
        self._model = model
        self._channel = grpc.aio.insecure_channel(
            f"{host}:{grpc_port}",
            options=(
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 250),
                ("grpc.use_local_subchannel_pool", 1),
                NO_PROXY,
            ),
        )
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._takes_stop: bool | None = None
        self.exits = False

    async def is_ready(self) -> bool:
        """Whether the server and its model say that they are ready, and the engine answers."""
        self.exits = False
        try:
            server, model = await asyncio.gather(
                self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=CALL_SECONDS),
                self._stub.ModelReady(
                    service_pb2.ModelReadyRequest(name=self._model), timeout=CALL_SECONDS
                ),
            )
            return bool(server.ready and model.ready) and await self._engine_answers()
        except grpc.aio.AioRpcError as error:
            self.exits = _is_exit(error)
            return False

    async def _engine_answers(self) -> bool:
        """Whether the model's engine answers; also true of a model that cannot be asked."""
        if self._takes_stop is None:
            wanted = service_pb2.ModelMetadataRequest(name=self._model)
            model = await self._stub.ModelMetadata(wanted, timeout=CALL_SECONDS)
            self._takes_stop = any(declared.name == "stop" for declared in model.inputs)
        if not self._takes_stop:
            return True
        return await self._said([_stop(self._model)]) == [""]

    async def _said(self, requests: Sequence[service_pb2.ModelInferRequest]) -> list[str]:
        """What is wrong with requests by the engine's word, an entry for each of its messages."""
        call = self._stub.ModelStreamInfer(iter(requests), timeout=CALL_SECONDS)
        # To its end: Triton does not like calls to be cancelled after their last message.
        return [message.error_message async for message in call]

    async def too_long(self, tokens: int) -> str | None:
        """Why a request of so many tokens, prompt and answer together, is too long for the engine.

        It is given one, and told at once to stop it. Empty: it is not, or the engine cannot stop
        one, and so is not asked. None: it did not answer in time.
        """
        if not self._takes_stop:
            return ""
        try:
            said = await self._said(_long_one(self._model, tokens))
        except grpc.aio.AioRpcError:
            return None
        return next((message for message in said if is_length_refusal(message)), "")

    async def running_requests(self) -> int | None:
        """Requests in the engine and in the queue before it, by Triton's own count.

        None: the engine publishes no count, or nobody answers.
        """
        try:
            return _running_requests(await asyncio.to_thread(self._read_metrics))
        except (OSError, ValueError, http.client.HTTPException):
            return None

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    def _read_metrics(self) -> str:
        connection = http.client.HTTPConnection(*self._metrics, timeout=CALL_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def _is_exit(error: grpc.aio.AioRpcError) -> bool:
    """Whether it tells of a server that exits; a want of our own, as of descriptors, does not."""
    said = (error.details() or "").lower()
    is_unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return is_unavailable and (_EXITING in said or _REFUSED in said)


def _stop(model: str) -> service_pb2.ModelInferRequest:
    """The request to stop one that does not exist."""
    return _request(model, _name(), 1, "stop")


def _long_one(model: str, tokens: int) -> list[service_pb2.ModelInferRequest]:
    """A request of so many tokens, and the request to stop it."""
    name = _name()
    return [
        _request(model, name, max(1, tokens - 1), "streaming"),
        _request(model, name, 1, "stop"),
    ]


def _name() -> str:
    return f"probe-{secrets.token_hex(8)}"


def _request(model: str, name: str, new_tokens: int, flag: str) -> service_pb2.ModelInferRequest:
    """A request of one token for so many more, with one flag set."""
    request = service_pb2.ModelInferRequest(model_name=model, id=name)
    tensors = (
        ("input_ids", "INT32", 1),
        ("input_lengths", "INT32", 1),
        ("request_output_len", "INT32", new_tokens),
        (flag, "BOOL", True),
    )
    for tensor, datatype, value in tensors:
        request.inputs.add(name=tensor, datatype=datatype, shape=[1, 1])
        request.raw_input_contents.append(value.to_bytes(4 if datatype == "INT32" else 1, "little"))
    for output in ("output_ids", "sequence_length"):
        request.outputs.add(name=output)
    return request


def _running_requests(page: str) -> int | None:
    """What a page of metrics says of them; None where it does not.

    Raises:
        ValueError: it cannot be read, as one that was cut off.
    """
    engine: int | None = None
    queued = 0
    for metric in text_string_to_metric_families(page):
        for sample in metric.samples:
            if metric.name == _QUEUE:
                queued += int(sample.value)
            elif metric.name == _ENGINE and sample.labels.get("request_type") == "active":
                engine = (engine or 0) + int(sample.value)
    return None if engine is None else engine + queued
