"""The errors that a caller may see, and how each becomes a gRPC status.

    ServiceError
    ├── BadRequest          INVALID_ARGUMENT    which field breaks which rule
    ├── Unauthenticated     UNAUTHENTICATED     no key, or an unknown one
    ├── Forbidden           PERMISSION_DENIED   a known key that may not do this
    ├── NotFound            NOT_FOUND           a route, a lease: named, not there
    ├── AlreadyExists       ALREADY_EXISTS      said before, and differently
    ├── NotNow              FAILED_PRECONDITION what is there does not allow it
    ├── Outrun              ABORTED             somebody else was quicker; look again
    ├── Overloaded          RESOURCE_EXHAUSTED  come back later; says when
    ├── Unavailable         UNAVAILABLE         try again, perhaps elsewhere
    ├── DeadlineExceeded    DEADLINE_EXCEEDED   the time was too short
    └── InternalError       INTERNAL            our fault

Adapters raise these; `services.common.gate` turns them into a status with google.rpc details at one
place. Messages never hold prompt or answer text.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status.rpc_status import to_status

from services.common.durations import duration_of

DOMAIN = "pennyweight"

# A status travels in trailers, of which gRPC takes 8 KB by default: longer ones reach nobody.
_MESSAGE_CHARACTERS = 600
_VIOLATIONS = 16
_NAME_CHARACTERS = 80
_RULE_CHARACTERS = 120


@dataclass(frozen=True)
class Violation:
    """One broken rule; `name` is the field's path in the request: ``prompt.messages[0]``."""

    name: str
    rule: str


@dataclass(eq=False)
class ServiceError(Exception):
    """An error with a gRPC status.

    Attributes:
        message: one sentence for a person.
        reason: stable UPPER_SNAKE word for programs, sent as google.rpc.ErrorInfo.reason.
        handle: the request's handle, where there is one, sent as google.rpc.RequestInfo.
        retry_after_seconds: when coming back makes sense, sent as google.rpc.RetryInfo.
    """

    message: str
    reason: str = ""
    handle: str = ""
    retry_after_seconds: float | None = None

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __str__(self) -> str:
        return self.message

    def status(self) -> grpc.Status:
        """The status with its details, ready for ``context.abort_with_status``."""
        details: list[any_pb2.Any] = []
        if self.reason:
            details.append(_packed(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)))
        if self.handle:
            details.append(_packed(error_details_pb2.RequestInfo(request_id=self.handle)))
        if self.retry_after_seconds is not None:
            delay = duration_of(self.retry_after_seconds)
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        details.extend(self._own_details())
        number: int = getattr(code_pb2, self.code.name)
        message = _cut(self.message, _MESSAGE_CHARACTERS)
        result: grpc.Status = to_status(
            status_pb2.Status(code=number, message=message, details=details)
        )
        return result

    def _own_details(self) -> list[any_pb2.Any]:
        return []


@dataclass(eq=False)
class BadRequest(ServiceError):
    """The request breaks a rule; `violations` names each field."""

    violations: tuple[Violation, ...] = field(default=())
    code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, *violations: Violation) -> "BadRequest":
        """A bad request that says what is wrong with it: the first 16 violations, and how many.

        Who checks a request bounds what it has many of before it looks at each.
        """
        told = violations[:_VIOLATIONS]
        text = "; ".join(f"{broken.name}: {broken.rule}" for broken in told)
        if more := len(violations) - len(told):
            text = f"{_cut(text, _MESSAGE_CHARACTERS - 32)}; and {more} more"
        return cls(text, reason="BAD_REQUEST", violations=told)

    def _own_details(self) -> list[any_pb2.Any]:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(broken.name, _NAME_CHARACTERS),
                description=_cut(broken.rule, _RULE_CHARACTERS),
            )
            for broken in self.violations
        ]
        return [_packed(error_details_pb2.BadRequest(field_violations=fields))] if fields else []


class Unauthenticated(ServiceError):
    """No key, or an unknown one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Forbidden(ServiceError):
    """A known key that may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(ServiceError):
    """Something named that is not there."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ServiceError):
    """Something is there already, and it is not what was said now."""

    code = grpc.StatusCode.ALREADY_EXISTS


class NotNow(ServiceError):
    """What is there does not allow it: trying again helps once that is another."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Outrun(ServiceError):
    """Somebody else was quicker, so that the caller must look again."""

    code = grpc.StatusCode.ABORTED


class Overloaded(ServiceError):
    """No room now."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    """A part is away; trying again may help."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    """The time was too short."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(ServiceError):
    """Our fault."""

    code = grpc.StatusCode.INTERNAL


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _packed(message: "object") -> any_pb2.Any:
    result = any_pb2.Any()
    result.Pack(message)  # type: ignore[arg-type]
    return result
