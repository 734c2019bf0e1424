"""One request's way back to its caller: what is sent, and that the last response is sent once.

Rules learned from crashes of the server: one thread sends for a request, and its sender is never
touched while or after it sends the last response. So the dispatcher's thread alone uses a
stream, and a stream that is closed leaves its sender alone.

State per request; time is an argument, in seconds.
"""

from __future__ import annotations

from typing import Protocol

from engines.cpu.stub.answer import Answer, Payload


class Sender(Protocol):
    """Where one request's responses go. Its calls may raise when the server is in trouble."""

    def send(self, payload: Payload, *, final: bool) -> None:
        """Send tensors."""

    def fail(self, text: str) -> None:
        """Send an error, the last response."""

    def end(self) -> None:
        """Send nothing but the end, the last response."""

    def is_cancelled(self) -> bool:
        """Whether the caller left."""


class Stream:
    """An answer and its sender. `request_id` is the caller's, and may be empty or shared."""

    def __init__(self, request_id: str, sender: Sender, answer: Answer) -> None:
        self.request_id = request_id
        self.answer = answer
        self._sender = sender
        self._cancelled = False
        self._closed = False  # the last response was sent, or was tried

    def due_at(self, interval: float) -> float | None:
        """When to call `send`, see `Answer.due_at`; who cannot be reached waits for the end."""
        if (self._cancelled or self._closed) and not self.answer.end:
            return None
        return self.answer.due_at(interval)

    def send(self, now: float) -> None:
        """Send what is there; the last response if the answer has ended. Raises as the sender."""
        end = self.answer.end
        if self._closed:
            return
        if end is None:
            self._sender.send(self.answer.take(now), final=False)
            return
        self._closed = True
        if end.error:
            self._sender.fail(end.error)
        elif self._cancelled:
            self._sender.end()
        else:
            self._sender.send(self.answer.take(now), final=True)

    def fail(self, text: str) -> None:
        """Make an error the last response, unless there was one. Raises as the sender."""
        if not self._closed:
            self._closed = True
            self._sender.fail(text)

    def just_cancelled(self) -> bool:
        """Ask whether the caller left; true the first time that they have."""
        if self._cancelled or self._closed or not self._sender.is_cancelled():
            return False
        self._cancelled = True
        return True
