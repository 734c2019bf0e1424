"""What can go wrong when calling Pennyweight, as exceptions.

    PennyweightError
    ├── BadRequest          INVALID_ARGUMENT    `violations` names each field and its rule; also a
    │                                           request larger than the service takes
    ├── Unauthenticated     UNAUTHENTICATED     no API key, or an unknown one
    ├── Forbidden           PERMISSION_DENIED   a known key that may not do this
    ├── NotFound            NOT_FOUND           no such route, lever or handle
    ├── AlreadyExists       ALREADY_EXISTS      something else was recorded before
    ├── NotNow              FAILED_PRECONDITION what is there does not allow it
    ├── Outrun              ABORTED             somebody else changed it; look again
    ├── Overloaded          RESOURCE_EXHAUSTED  no room or no budget now
    ├── Unavailable         UNAVAILABLE         nothing answers, or a part is away
    ├── DeadlineExceeded    DEADLINE_EXCEEDED   the time was too short
    └── InternalError       INTERNAL            the service's fault

A status with any other code is a plain `PennyweightError`.
"""

import re
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pennyweight.wire import seconds_of


@dataclass(frozen=True)
class Violation:
    """One broken rule; `name` is the field's path in the request: ``prompt.messages[0]``."""

    name: str
    rule: str


@dataclass(eq=False)
class PennyweightError(Exception):
    """A call that failed.

    Attributes:
        message: one sentence for a person.
        code: the gRPC status code.
        reason: stable UPPER_SNAKE word for programs. Empty: the service gave none.
        handle: name of the request, to quote to support. Empty: it failed before it got one.
        violations: what is wrong with which field. Empty unless the request broke rules.
        retry_after_seconds: when coming back makes sense. None: the service did not say.
    """

    message: str
    code: grpc.StatusCode
    reason: str = ""
    handle: str = ""
    violations: tuple[Violation, ...] = ()
    retry_after_seconds: float | None = None

    def __str__(self) -> str:
        return self.message


class BadRequest(PennyweightError):
    """The request breaks a rule."""


class Unauthenticated(PennyweightError):
    """No API key, or an unknown one."""


class Forbidden(PennyweightError):
    """A known key that may not do this."""


class NotFound(PennyweightError):
    """Something named that is not there."""


class AlreadyExists(PennyweightError):
    """Something else was recorded before."""


class NotNow(PennyweightError):
    """What is there does not allow it: trying again helps once that is another."""


class Outrun(PennyweightError):
    """Somebody else was quicker, so that one must look again."""


class Overloaded(PennyweightError):
    """No room, or no budget left."""


class Unavailable(PennyweightError):
    """Nothing answers at the address, or a part of the system is away."""


class DeadlineExceeded(PennyweightError):
    """The time was too short."""


class InternalError(PennyweightError):
    """The service's fault."""


_BY_CODE: dict[grpc.StatusCode, type[PennyweightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: NotNow,
    grpc.StatusCode.ABORTED: Outrun,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}


def error_of(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str = "",
    handle: str = "",
    violations: tuple[Violation, ...] = (),
    retry_after_seconds: float | None = None,
) -> PennyweightError:
    """The member of the family that stands for a status code."""
    kind = _BY_CODE.get(code, PennyweightError)
    return kind(message, code, reason, handle, violations, retry_after_seconds)


def error_of_call(call: grpc.aio.AioRpcError) -> PennyweightError:
    """Reads a failed call's status and its google.rpc details."""
    message = call.details() or call.code().name
    of_grpc = _of_grpc(call.code(), message)
    if of_grpc is not None:
        return of_grpc
    try:
        status = rpc_status.from_call(call)  # type: ignore[arg-type]
    except ValueError:  # details that contradict the status: the status stands
        status = None
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_seconds = None
    for detail in status.details if status is not None else ():
        if detail.Unpack(retry):
            retry_after_seconds = seconds_of(retry.retry_delay)
        else:  # Unpack leaves a message of another kind as it is
            _ = detail.Unpack(info) or detail.Unpack(request) or detail.Unpack(bad)
    return error_of(
        call.code(),
        message,
        reason=info.reason,
        handle=request.request_id,
        violations=tuple(
            Violation(broken.field, broken.description) for broken in bad.field_violations
        ),
        retry_after_seconds=retry_after_seconds,
    )


# gRPC's own words. It ends with RESOURCE_EXHAUSTED what is too large, which no waiting mends.
_TOO_LARGE = re.compile(
    r"(?:(CLIENT|SERVER): )?(?:Received|Sent) message larger than max \((\d+) vs\. (\d+)\)"
)

# A connection that was taken and ended before the service had said a word.
_UNGREETED = re.compile(r"failed to connect .*: Socket closed")


def _of_grpc(code: grpc.StatusCode, message: str) -> PennyweightError | None:
    """The error for what gRPC says itself and in words that mislead; None for all else."""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        sentence = (
            "the service at this address does not know the call: the port is another service's, "
            f"or the service of another version ({message})"
        )
        return PennyweightError(sentence, code, reason="CALL_UNKNOWN")
    if code is grpc.StatusCode.UNAVAILABLE and _UNGREETED.search(message):
        return error_of(
            code, f"{message} (does one side alone speak TLS, or ask for certificates?)"
        )
    return _too_large(code, message) if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None


def _too_large(code: grpc.StatusCode, message: str) -> PennyweightError | None:
    found = _TOO_LARGE.search(message)
    if found is not None:
        size, limit = int(found[2]), int(found[3])
        if found[1] == "CLIENT":
            sentence = f"the answer has {size:,} bytes, and this client takes {limit:,} at most"
            return PennyweightError(sentence, code, reason="ANSWER_TOO_LARGE")
        sentence = f"the request has {size:,} bytes, and the service takes {limit:,} at most"
        return BadRequest(sentence, code, reason="REQUEST_TOO_LARGE")
    if "metadata size exceeds" in message:
        sentence = f"the metadata of the call, such as the API key, is too large ({message})"
        return BadRequest(sentence, code, reason="METADATA_TOO_LARGE")
    return None
