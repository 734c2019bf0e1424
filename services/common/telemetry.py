"""Traces, made the same way in every service. Nothing that a caller wrote reaches one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import grpc
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from services.common.errors import ServiceError

NOTHING: AbstractContextManager[object] = nullcontext()


class Tracing:
    """Spans to an OTLP collector; without an endpoint every call here does nothing."""

    def __init__(self, service: str, endpoint: str = "") -> None:
        self._tracer: trace.Tracer | None = None
        self._provider: TracerProvider | None = None
        if endpoint:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )

            self._provider = TracerProvider(
                resource=Resource.create({"service.name": f"pennyweight-{service}"})
            )
            exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("pennyweight")

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere; callers skip the work of naming attributes when not."""
        return self._tracer is not None

    def span(
        self, name: str, traceparent: str = "", **attributes: str | int
    ) -> AbstractContextManager[object]:
        """A span around the block; `traceparent` (W3C) makes it a child of a remote one.

        Of an error it tells the code's name alone.
        """
        if self._tracer is None:
            return NOTHING
        parent = propagate.extract({"traceparent": traceparent}) if traceparent else None
        return _named_alone(
            self._tracer.start_as_current_span(
                name,
                context=parent,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            )
        )

    def traceparent(self) -> str:
        """W3C context of the current span, to be sent along; empty when not tracing."""
        if self._tracer is None:
            return ""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier.get("traceparent", "")

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


@contextmanager
def _named_alone(started: AbstractContextManager[trace.Span]) -> Iterator[None]:
    """A span whose error has its code's name; messages and stacks hold pieces of requests."""
    with started as span:
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, ServiceError) else grpc.StatusCode.INTERNAL
            span.set_status(trace.StatusCode.ERROR, code.name)
            raise
