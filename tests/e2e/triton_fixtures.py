"""A real Triton with the CPU engine for tests, and a plain client of its wire protocol."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.scaler.targets.model_view import prepare_view
from services.scaler.targets.runtime import find_runtime
from services.scaler.targets.tritonserver import (
    ReplicaLaunch,
    command,
    remove_shared_memory,
    shared_memory_prefix,
    stub_pids,
)
from tests.making.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository" / "cpu"
END_ID, PAD_ID = 2, 0

_DTYPES = {
    "input_ids": "INT32",
    "input_lengths": "INT32",
    "request_output_len": "INT32",
    "end_id": "INT32",
    "pad_id": "INT32",
    "num_return_sequences": "INT32",
    "beam_width": "INT32",
    "runtime_top_k": "INT32",
    "min_tokens": "INT32",
    "stop_words_list": "INT32",
    "bad_words_list": "INT32",
    "seed": "UINT64",
    "runtime_top_p": "FP32",
    "temperature": "FP32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "embedding_bias": "FP32",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
_NUMPY = {"INT32": "<i4", "INT64": "<i8", "UINT64": "<u8", "FP32": "<f4", "BOOL": "?"}


class Triton:
    """One server process; use as a context manager."""

    def __init__(
        self,
        directory: Path,
        model: str = "small",
        repository: Path = REPOSITORY,
        cpus: tuple[int, ...] = (),
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self.launch = ReplicaLaunch(
            replica_id=f"test-{uuid.uuid4().hex[:8]}",
            model=model,
            repository=repository,
            grpc_port=free_port(),
            metrics_port=free_port(),
            parameters=parameters or {},
            cpus=cpus,
        )
        runtime = find_runtime(directory / "cache")
        view = prepare_view(self.launch, directory / self.launch.replica_id)
        argv, environment = command(runtime, self.launch, view)
        self.log = directory / f"{self.launch.replica_id}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.address = f"127.0.0.1:{self.launch.grpc_port}"
        self.channel = grpc.insecure_channel(self.address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, seconds: float = 30.0) -> float:
        """Seconds until the model is ready; fails when the server ends first."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log.read_text()[-3000:]}")
            with contextlib.suppress(grpc.RpcError):
                if self.stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1).ready:
                    return time.monotonic() - began
            time.sleep(0.02)
        raise AssertionError(f"not ready after {seconds} s:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        remove_shared_memory(self.launch.replica_id)

    def stubs(self) -> tuple[int, ...]:
        return stub_pids(self.process.pid)

    def engines(self) -> list[psutil.Process]:
        return [child for stub in self.stubs() for child in psutil.Process(stub).children()]

    def shared_memory(self) -> list[str]:
        prefix = shared_memory_prefix(self.launch.replica_id)
        return [entry.name for entry in Path("/dev/shm").glob(f"{prefix}*")]

    def metrics(self) -> dict[str, float]:
        """Every sample as `name{labels}` without model and version, to value."""
        url = f"http://127.0.0.1:{self.launch.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                for label in (f'model="{self.model}"', 'version="1"'):
                    name = name.replace(f"{label},", "").replace(f",{label}", "")
                samples[name] = float(value)
        return samples

    def active(self) -> float:
        return self.metrics()['nv_trt_llm_request_metrics{request_type="active"}']

    def counted(self) -> tuple[int, int]:
        """Prompt tokens and generated tokens of all requests that ended so far."""
        samples = self.metrics()
        prompts = samples['nv_llm_input_token_len_sum{response_metric_type="total_input_tokens"}']
        made = samples['nv_llm_output_token_len_sum{response_metric_type="total_output_tokens"}']
        return int(prompts), int(made)

    def generate(self, prompt: Sequence[int], tokens: int, **options: Any) -> Answer:
        """Run a request to its end."""
        return collect(self.stub.ModelStreamInfer(iter([self.request(prompt, tokens, **options)])))

    def request(
        self,
        prompt: Sequence[int],
        tokens: int,
        *,
        request_id: str = "",
        outputs: Sequence[str] = (),
        source: str = "",
        **options: Any,
    ) -> service_pb2.ModelInferRequest:
        values: dict[str, Any] = {
            "input_ids": [list(prompt)],
            "input_lengths": [[len(prompt)]],
            "request_output_len": [[tokens]],
            "exclude_input_in_output": [[True]],
            "end_id": [[-1]],
            "pad_id": [[PAD_ID]],
            "streaming": [[True]],
        }
        for name, value in options.items():
            if value is None:
                values.pop(name, None)
            else:
                values[name] = [[value]] if np.ndim(value) == 0 else value
        wanted = ["output_ids", "sequence_length", *outputs]
        if options.get("return_log_probs"):
            wanted += ["output_log_probs", "cum_log_probs"]
        request = infer_request(self.model, values, wanted, request_id or uuid.uuid4().hex)
        if source:
            request.parameters["pennyweight_source"].string_param = source
        return request


def infer_request(
    model: str, values: Mapping[str, Any], outputs: Sequence[str], request_id: str
) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name in outputs:
        request.outputs.add().name = name
    for name, value in values.items():
        dtype = _DTYPES.get(name, "BOOL")
        tensor = request.inputs.add(name=name, datatype=dtype)
        if dtype == "BYTES":
            text = value[0][0].encode()
            tensor.shape.extend([1, 1])
            request.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        else:
            array = np.array(value, _NUMPY[dtype])
            tensor.shape.extend(array.shape)
            request.raw_input_contents.append(array.tobytes())
    return request


@dataclass
class Answer:
    """What a stream brought: every response's tensors and flag, the error, when each came."""

    responses: list[dict[str, np.ndarray[Any, Any]]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    error: str = ""

    @property
    def final(self) -> bool:
        """Whether the last response says that it is the last."""
        return self.flags[-1:] == [True]

    @property
    def tokens(self) -> list[int]:
        return [
            token
            for response in self.responses
            if "output_ids" in response
            for token in response["output_ids"][0, 0, : response["sequence_length"][0, 0]].tolist()
        ]

    @property
    def last(self) -> dict[str, np.ndarray[Any, Any]]:
        return self.responses[-1]


def read(message: service_pb2.ModelStreamInferResponse, answer: Answer) -> bool:
    """Add a message to an answer; true when it was the last one."""
    answer.at.append(time.monotonic())
    if message.error_message:
        answer.error = message.error_message
        return True
    response = message.infer_response
    tensors = {
        output.name: np.frombuffer(raw, _NUMPY[output.datatype]).reshape(list(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    answer.responses.append(tensors)
    answer.flags.append(response.parameters["triton_final_response"].bool_param)
    return answer.final


def collect(call: Iterator[service_pb2.ModelStreamInferResponse]) -> Answer:
    answer = Answer()
    for message in call:
        read(message, answer)
    return answer


def start(server: Triton, prompt: Sequence[int], tokens: int, **options: Any) -> tuple[Any, Answer]:
    """A running stream: its call and its answer so far, the first tokens in it."""
    call = server.stub.ModelStreamInfer(iter([server.request(prompt, tokens, **options)]))
    answer = Answer()
    read(next(call), answer)
    return call, answer


def finish(call: Iterator[service_pb2.ModelStreamInferResponse], answer: Answer) -> Answer:
    """The whole answer of a running stream."""
    for message in call:
        if read(message, answer):
            break
    return answer


class SharedStream:
    """One stream for many requests, as routers have it; use as a context manager."""

    def __init__(self, server: Triton) -> None:
        self._outbox: queue.SimpleQueue[service_pb2.ModelInferRequest | None] = queue.SimpleQueue()
        self._call = server.stub.ModelStreamInfer(iter(self._outbox.get, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outbox.put(None)
        assert list(self._call) == [], "messages that no test expected"

    def send(self, *requests: service_pb2.ModelInferRequest) -> None:
        for request in requests:
            self._outbox.put(request)

    def take(self, count: int) -> list[tuple[str, Answer]]:
        """The next messages, as (request id, an answer of this message alone)."""
        taken = []
        for message in itertools.islice(self._call, count):
            read(message, answer := Answer())
            taken.append((message.infer_response.id, answer))
        return taken


class Held:
    """A server's engine, standing still but for `run`; use as a context manager.

    Whatever else the machine does, requests can so be ended in the middle.
    """

    def __init__(self, server: Triton) -> None:
        (self._engine,) = server.engines()

    def __enter__(self) -> Self:
        self._engine.suspend()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # killed meanwhile
            self._engine.resume()

    def run(self, seconds: float = 0.05, done: Callable[[], bool] = lambda: False) -> None:
        """Let the engine work for about so much processor time: some dozens of tokens.

        Less if it is `done`: an engine without requests uses no time.
        """
        began = self._worked()
        self._engine.resume()
        until(lambda: self._worked() - began >= seconds or done())
        self._engine.suspend()

    def _worked(self) -> float:
        times = self._engine.cpu_times()
        return float(times.user + times.system)


def until(condition: Any, seconds: float = 5.0) -> float:
    """Seconds until the condition holds; fails when it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not so after {seconds} s")
        time.sleep(0.002)
    return time.monotonic() - began
