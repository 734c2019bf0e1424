"""What goes wrong with calls to the API server, by kind; errors of the library read as such."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import httpx2
from lightkube import ApiError

from services.scaler.targets.kubernetes import objects


class Fault(StrEnum):
    """What went wrong with a call, as metrics name it."""

    CONFLICT = "conflict"
    """409: the object is not as it was seen."""
    GONE = "gone"
    """410: what happened since the version that was seen is not known any more."""
    BUSY = "busy"
    """429: too many calls."""
    FORBIDDEN = "forbidden"
    """401 and 403: the service account may not."""
    MISSING = "missing"
    """404: there is no such object."""
    REFUSED = "refused"
    """Any other 4xx."""
    BROKEN = "broken"
    """5xx, or an answer that is none."""
    SLOW = "slow"
    """No answer in time."""
    UNREACHABLE = "unreachable"
    """No connection, or none that lasts."""


class ClusterFault(Exception):
    """A call to the API server that came to nothing.

    Attributes:
        fault: its kind.
        retry_after_seconds: how long the server asks to be left alone; 0: it does not say.
    """

    def __init__(self, fault: Fault, what: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.fault = fault
        self.retry_after_seconds = retry_after_seconds


def fault_of(error: Exception, what: str) -> ClusterFault:
    """What an error of the library means. `what` was asked, in kubectl's words."""
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return ClusterFault(Fault.SLOW, f"{what}: the API server does not answer in time")
    status = _status(error)
    if status is None:
        if isinstance(error, httpx2.HTTPError | OSError):
            why = str(error) or type(error).__name__
            return ClusterFault(
                Fault.UNREACHABLE, f"{what}: the API server cannot be reached: {why}"
            )
        why = f"{type(error).__name__}: {error}"[: objects.MAX_SAID]
        return ClusterFault(Fault.BROKEN, f"{what}: the API server's answer is none: {why}")
    said = f"{what}: {status.code}: {status.said[: objects.MAX_SAID]}"
    return ClusterFault(_fault(status.code), said, status.retry_after_seconds)


_FAULTS = {
    401: Fault.FORBIDDEN,
    403: Fault.FORBIDDEN,
    404: Fault.MISSING,
    409: Fault.CONFLICT,
    410: Fault.GONE,
    429: Fault.BUSY,
}
_SERVER_ERROR = 500


def _fault(code: int) -> Fault:
    return _FAULTS.get(code, Fault.BROKEN if code >= _SERVER_ERROR else Fault.REFUSED)


@dataclass(frozen=True)
class _Status:
    """A refusal: its code, the server's words, and how long to stay away."""

    code: int
    said: str
    retry_after_seconds: float = 0.0


def _status(error: BaseException | None) -> _Status | None:
    """The refusal that an error is about; None: it is about none.

    A watch brings it in the stream. Where an answer is no `Status`, the library fails while it
    reads it, and what it was about is the error before.
    """
    if isinstance(error, ApiError) and error.status is not None:
        details = error.status.details
        wait = max(float((details and details.retryAfterSeconds) or 0), _asked_wait(error))
        return _Status(error.status.code or 0, error.status.message or "", wait)
    if isinstance(error, httpx2.HTTPStatusError):
        code = error.response.status_code
        return _Status(code, _words(error.response), _asked_wait(error))
    return None if error is None else _status(error.__context__)


def _asked_wait(error: httpx2.HTTPStatusError) -> float:
    """What `Retry-After` says."""
    response: httpx2.Response | None = getattr(error, "response", None)
    return 0.0 if response is None else _seconds(response.headers.get("Retry-After"))


def _words(response: httpx2.Response) -> str:
    with suppress(Exception):  # it may not be read, or not be JSON
        return str(response.json()["message"])
    return response.reason_phrase


def _seconds(text: str | None) -> float:
    return min(float(text), 60.0) if text is not None and text.isdecimal() else 0.0
