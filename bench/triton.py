"""The real Triton: one replica of a local model, and the request that its engine takes."""

import os
import struct
import time

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.stack import REPOSITORY, BenchError, Process, Stack, free_port
from services.scaler.targets.model_view import prepare_view
from services.scaler.targets.runtime import find_runtime
from services.scaler.targets.tritonserver import ReplicaLaunch, command

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
START_SECONDS = 60.0
NO_END = -1
"""As the end token: the answer has all the tokens it may have."""


def start_replica(stack: Stack, model: str, **parameters: str) -> tuple[Process, str]:
    """Starts a replica as the scaler would, without one. Returns it and its gRPC address.

    Raises:
        BenchError: it did not become ready.
    """
    launch = ReplicaLaunch(
        replica_id=f"bench-{os.getpid()}",
        model=model,
        repository=REPOSITORY,
        grpc_port=free_port(),
        metrics_port=free_port(),
        parameters=parameters,
    )
    runtime = find_runtime(stack.folder)
    argv, environment = command(
        runtime, launch, prepare_view(launch, stack.folder / "view"), os.environ
    )
    process = stack.start(f"triton-{model}", argv, environment)
    address = f"127.0.0.1:{launch.grpc_port}"
    end = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < end:
            process.check()
            try:
                ready = stub.ModelReady(service_pb2.ModelReadyRequest(name=model), timeout=2)
            except grpc.RpcError:
                ready = None
            if ready is not None and ready.ready:
                return process, address
            time.sleep(0.05)
    raise BenchError(f"the replica of {model} was not ready after {START_SECONDS:.0f} s")


def infer_request(
    model: str, prompt: list[int], *, output_tokens: int, streaming: bool, end_id: int = NO_END
) -> bytes:
    """A greedy request to a model that speaks TensorRT-LLM's tensors, serialised."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    tensors: tuple[tuple[str, str, tuple[int, ...], bytes], ...] = (
        ("input_ids", "INT32", (1, len(prompt)), struct.pack(f"<{len(prompt)}i", *prompt)),
        ("input_lengths", "INT32", (1, 1), struct.pack("<i", len(prompt))),
        ("request_output_len", "INT32", (1, 1), struct.pack("<i", output_tokens)),
        ("end_id", "INT32", (1, 1), struct.pack("<i", end_id)),
        ("streaming", "BOOL", (1, 1), bytes((streaming,))),
        ("exclude_input_in_output", "BOOL", (1, 1), b"\1"),
        ("runtime_top_k", "INT32", (1, 1), struct.pack("<i", 1)),
    )
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def token_count(response: bytes) -> int:
    """Tokens in one message of a replica.

    Raises:
        BenchError: the message is an error.
    """
    message = service_pb2.ModelStreamInferResponse.FromString(response)
    if message.error_message:
        raise BenchError(f"the replica says: {message.error_message}")
    outputs = message.infer_response.outputs
    for output, raw in zip(outputs, message.infer_response.raw_output_contents, strict=False):
        if output.name == "sequence_length":
            count: int = struct.unpack("<i", raw)[0]
            return count
    return 0
