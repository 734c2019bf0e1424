"""How a stream that broke is read: was the replica there, and did it break down at its work?"""

import grpc
import pytest

from services.common.errors import InternalError
from services.router.engines.triton_call import failure_of
from services.router.engines.trtllm import classify
from services.router.ports import ReplicaFailed


def broken(text: str) -> ReplicaFailed:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details=text
    )
    failure = failure_of(error)
    assert isinstance(failure, ReplicaFailed)
    return failure


@pytest.mark.parametrize(
    ("text", "refused", "died"),
    [
        ("Stream removed (Socket closed)", False, True),
        ("recvmsg:Connection reset by peer", False, True),
        (
            "failed to connect to all addresses; last error: ipv4:127.0.0.1:42809: refused",
            True,
            False,
        ),
        ("DNS resolution failed for replica:8001", True, False),
        ("GOAWAY received", False, False),
        ("Server is stopping", False, False),
    ],
)
def test_a_connection_that_breaks_at_work_is_a_death(
    text: str, *, refused: bool, died: bool
) -> None:
    failure = broken(text)
    assert (failure.lost, failure.refused, failure.died) == (True, refused, died)


@pytest.mark.parametrize(
    ("message", "died", "silent"),
    [
        # A stub that hangs is as little healthy as a dead one, and has made nothing meanwhile.
        ("Stub process 'small_0_0' is not healthy.", False, True),
        ("the engine said nothing for 20 s", False, True),
        ("the engine process ended", True, False),
        ("GRPC server is shutting down", False, False),
        ("the engine is shutting down over the guide of another request", False, False),
        (
            "Server is stopping, scheduler for model has stopped accepting new requests",
            False,
            False,
        ),
    ],
)
def test_what_computes_may_die_or_hang_though_its_server_lives(
    message: str, *, died: bool, silent: bool
) -> None:
    failure = classify(message)
    assert isinstance(failure, ReplicaFailed)
    assert (failure.died, failure.silent) == (died, silent)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid request: prompt length (9) plus request_output_len (60) exceeds max_seq_len (64)",
        "Invalid request: prompt length (9) plus request_output_len (60) exceeds the KV-cache (32)",
        "Executor failed process requestId 7: needs 9 KV-cache blocks, the engine has 8",
        "Executor failed process requestId 7: Prompt length (900) exceeds maximum input length (5)",
    ],
)
def test_a_length_that_the_tier_promises_is_the_replicas_fault(message: str) -> None:
    failure = classify(message)
    assert isinstance(failure, ReplicaFailed)
    assert failure.refused  # it costs nobody anything
    assert not failure.lost  # shorter ones it takes


def test_what_a_caller_is_told_of_a_broken_stream_names_no_address() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="ipv4:10.0.0.7:8001: RST_STREAM with error code 2",
    )
    failure = failure_of(error)
    assert isinstance(failure, InternalError)
    assert "10.0.0.7" not in failure.message
    assert failure.reason == "ENGINE_FAILED"
