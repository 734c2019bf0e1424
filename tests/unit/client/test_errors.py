"""What gRPC itself says of a call becomes an error that does not mislead."""

import grpc
import pytest

import pennyweight as pw
from pennyweight.errors import error_of_call


def failed(code: grpc.StatusCode, details: str) -> pw.PennyweightError:
    return error_of_call(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    )


@pytest.mark.parametrize("who", ["SERVER: ", ""])
def test_a_request_that_is_too_large_is_no_overload(who: str) -> None:
    said = f"{who}Received message larger than max (5000058 vs. 4194304)"
    error = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
    assert isinstance(error, pw.BadRequest)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
    assert str(error) == "the request has 5,000,058 bytes, and the service takes 4,194,304 at most"


def test_an_answer_that_is_too_large_is_no_overload() -> None:
    said = "Stream removed (CLIENT: Received message larger than max (5000005 vs. 4194304))"
    error = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
    assert (type(error), error.reason) == (pw.PennyweightError, "ANSWER_TOO_LARGE")
    assert "the answer has 5,000,005 bytes, and this client takes 4,194,304 at most" in str(error)


def test_metadata_that_is_too_large_is_no_overload() -> None:
    said = "received metadata size exceeds hard limit (value length 20007 vs. 16384)"
    error = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
    assert (type(error), error.reason) == (pw.BadRequest, "METADATA_TOO_LARGE")


def test_no_room_is_an_overload() -> None:
    assert type(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")) is pw.Overloaded


def test_a_call_that_the_service_does_not_know() -> None:
    error = failed(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert "the port is another service's" in str(error)
    assert error.reason == "CALL_UNKNOWN"


def test_a_connection_that_ends_at_once_may_lack_tls() -> None:
    said = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:1.2.3.4:5: "
    error = failed(grpc.StatusCode.UNAVAILABLE, f"{said}Socket closed")
    assert (type(error), error.reason) == (pw.Unavailable, "")
    assert str(error).endswith(
        "Socket closed (does one side alone speak TLS, or ask for certificates?)"
    )
    for other in (f"{said}Connection refused", "Socket closed"):
        assert str(failed(grpc.StatusCode.UNAVAILABLE, other)) == other
