"""A request on one of Triton's streams: what arrives for it, and what that means."""

import abc
import asyncio
import math
import struct
from collections import deque
from collections.abc import Callable, Sequence

import grpc
import structlog
from tritonclient.grpc import service_pb2

from services.common.errors import DeadlineExceeded, InternalError, ServiceError
from services.router.engines.pieces import Pieces
from services.router.engines.trtllm import Chunk, classify, decode, unpack_log_probs
from services.router.ports import EngineFigures, Finish, Piece, ReplicaFailed

log = structlog.get_logger()

UNREACHED = ("ailed to connect", "onnection refused", "DNS resolution failed")
"""What gRPC says where a replica was not there when it was to take a request."""

CLOSED = ("GOAWAY", "shutdown", "Server is stopping")
"""What it says where a server closed the connection in order."""

LAST_SECONDS = 1.0
"""How long a replica may take for its last word after it was asked to end a request."""


class TritonCall(abc.ABC):
    """See `EngineCall`; one request on one replica.

    Attributes:
        limit: seconds of the clock at which the replica counts as silent.
    """

    def __init__(
        self,
        running: "set[TritonCall]",
        pieces: Pieces,
        clock: Callable[[], float],
        ends_at: float = math.inf,
    ) -> None:
        """It may run until `ends_at` of the clock."""
        self._running = running
        self._pieces = pieces
        self._clock = clock
        self._arrived: deque[Chunk | Exception] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._log_probs: bytes | None = None
        self._ends_at = ends_at
        self.limit = ends_at
        self.output_tokens = 0
        self.final = False
        self.heard_at: float | None = None
        self.figures = EngineFigures()
        running.add(self)

    @property
    def finish_reason(self) -> Finish:
        """See `EngineCall.finish_reason`."""
        return self._pieces.finish_reason

    def arrived(self, what: Chunk | Exception) -> None:
        """Takes what came for this request; it stays until it is read."""
        if self not in self._running:  # it has ended, and its money is counted
            return
        if isinstance(what, Chunk):
            self.heard_at = self._clock()
            self._note(what)
        self._arrived.append(what)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self, timeout_seconds: float) -> Piece:
        """See `EngineCall.read`."""
        self.limit = min(self._clock() + timeout_seconds, self._ends_at)
        while not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self.limit = self._ends_at  # a caller who takes text slowly is no silence of the replica
        return self._next_piece()

    def log_probs(self, most: int) -> Sequence[float] | None:
        """See `EngineCall.log_probs`."""
        return None if self._log_probs is None else unpack_log_probs(self._log_probs, most)

    @abc.abstractmethod
    def finish(self) -> None:
        """See `EngineCall.finish`."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """See `EngineCall.stop`."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """See `EngineCall.cancel`."""

    def give_up(self, failure: ReplicaFailed) -> None:
        """See `EngineCall.give_up`."""
        self.arrived(failure)
        self.cancel()

    def _note(self, chunk: Chunk) -> None:
        """Counts what a chunk brings, read or not."""
        self.output_tokens += len(chunk.tokens)
        if chunk.log_probs:  # other than tokens they come as the whole list so far
            self._log_probs = chunk.log_probs
        if chunk.final:
            self.final = True
            self.figures = chunk.figures or self.figures

    def _next_piece(self) -> Piece:
        """The piece of all that has piled up.

        Raises:
            ReplicaFailed, ServiceError: that came next.
        """
        what = self._arrived.popleft()
        if isinstance(what, Exception):
            self.finish()
            raise what
        chunks = [what]
        while self._arrived and isinstance(following := self._arrived[0], Chunk):
            self._arrived.popleft()
            chunks.append(following)
        tokens = [token for chunk in chunks for token in chunk.tokens]
        return self._pieces.take(tokens, final=chunks[-1].final)

    def _end(self) -> bool:
        """Notes the end; False if it was noted before."""
        if self not in self._running:
            return False
        self._running.discard(self)
        return True


def closed() -> ReplicaFailed:
    """The failure of what ran on a connection that we closed."""
    return ReplicaFailed("the connection was closed", lost=True)


def decoded(message: service_pb2.ModelStreamInferResponse) -> Chunk | Exception:
    """What a message brings, or how it ends its request."""
    try:
        return decode(message)
    except (ReplicaFailed, ServiceError) as error:
        return error
    except struct.error as error:
        return InternalError(f"the replica sent what cannot be read: {error}")


def failure_of(error: grpc.aio.AioRpcError) -> Exception:
    """How a stream that broke ends its requests."""
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        refused = any(known in text for known in UNREACHED)
        in_order = any(known in text for known in CLOSED)
        return ReplicaFailed(text, lost=True, refused=refused, died=not (refused or in_order))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed while the model was answering")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ReplicaFailed(text, lost=False)
    result = classify(text)
    if isinstance(result, InternalError):  # what gRPC says of it may name the replica's address
        log.warning("a stream to a replica broke", code=code.name, why=text)
        return InternalError(f"the replica's stream broke: {code.name}", reason="ENGINE_FAILED")
    return result
