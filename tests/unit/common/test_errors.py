"""Each error becomes a status with the details that programs read."""

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pennyweight.errors import error_of
from services.common import errors
from services.common.errors import BadRequest, Overloaded, ServiceError, Violation

CODES = {
    "BadRequest": grpc.StatusCode.INVALID_ARGUMENT,
    "Unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "Forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "NotFound": grpc.StatusCode.NOT_FOUND,
    "AlreadyExists": grpc.StatusCode.ALREADY_EXISTS,
    "NotNow": grpc.StatusCode.FAILED_PRECONDITION,
    "Outrun": grpc.StatusCode.ABORTED,
    "Overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Unavailable": grpc.StatusCode.UNAVAILABLE,
    "DeadlineExceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "InternalError": grpc.StatusCode.INTERNAL,
}


def details(error: ServiceError) -> dict[str, Message]:
    (packed,) = (value for key, value in error.status().trailing_metadata if key.endswith("-bin"))
    status = status_pb2.Status.FromString(packed)
    found: dict[str, Message] = {}
    for detail in status.details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        assert detail.Unpack(found[name])
    return found


@pytest.mark.parametrize("name", sorted(CODES))
def test_each_error_has_its_code_and_message(name: str) -> None:
    error = getattr(errors, name)("what happened", reason="REASON")
    status = error.status()
    assert (status.code, status.details) == (CODES[name], "what happened")
    assert str(error) == "what happened"
    assert f"├── {name}" in str(errors.__doc__) or f"└── {name}" in str(errors.__doc__)


def test_every_error_is_in_the_table() -> None:
    kinds = {kind.__name__ for kind in ServiceError.__subclasses__()}
    assert kinds == CODES.keys()


@pytest.mark.parametrize("kind", ServiceError.__subclasses__())
def test_callers_get_an_exception_of_the_same_name(kind: type[ServiceError]) -> None:
    assert type(error_of(kind.code, "what happened")).__name__ == kind.__name__


def test_the_reason_handle_and_retry_travel_as_details() -> None:
    error = Overloaded("full", reason="QUEUE_FULL", handle="h-1", retry_after_seconds=1.25)
    found = details(error)
    assert found["ErrorInfo"].reason == "QUEUE_FULL"
    assert found["ErrorInfo"].domain == "pennyweight"
    assert found["RequestInfo"].request_id == "h-1"
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1250


def test_absent_details_are_not_sent() -> None:
    assert details(Overloaded("full")) == {}


def test_a_bad_request_names_each_field_and_rule() -> None:
    error = BadRequest.of(Violation("route", "is required"), Violation("prompt", "too long"))
    assert str(error) == "route: is required; prompt: too long"
    violations = details(error)["BadRequest"].field_violations
    assert [(violation.field, violation.description) for violation in violations] == [
        ("route", "is required"),
        ("prompt", "too long"),
    ]


def test_a_status_fits_in_the_trailers() -> None:
    many = [Violation(f"prompt.messages[{i}].content", "is empty " * 20) for i in range(500)]
    status = BadRequest.of(*many).status()
    size = len(status.details) + sum(len(value) for _, value in status.trailing_metadata)
    assert size < 6000
    assert status.details.startswith("prompt.messages[0].content: is empty")
    assert status.details.endswith("…; and 484 more")


def test_of_many_violations_the_first_are_kept() -> None:
    error = BadRequest.of(*(Violation(f"ids[{i}]", "is empty") for i in range(1000)))
    assert [broken.name for broken in error.violations] == [f"ids[{i}]" for i in range(16)]
    assert str(error).endswith("ids[15]: is empty; and 984 more")


def test_errors_can_be_compared_and_kept_in_sets() -> None:
    one, other = Overloaded("full"), Overloaded("full")
    assert one != other
    assert len({one, other}) == 2
