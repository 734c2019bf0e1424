"""Logs, the metrics endpoint and traces, set up the same way in every service.

Logs are JSON lines on standard error, one canonical line for each request; on a terminal they are
coloured text. Prompt and answer text never reaches a log, a metric or a trace.
"""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext

import orjson
import structlog
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import ThreadingWSGIServer

from services.common.config import ConfigError


def configure_logging(service: str, level: str) -> None:
    """Sends structlog's and the libraries' records to standard error as one kind of line."""
    renderer: structlog.typing.Processor
    lines: structlog.WriteLoggerFactory | structlog.BytesLoggerFactory
    if sys.stderr.isatty():
        renderer, lines = structlog.dev.ConsoleRenderer(), structlog.WriteLoggerFactory(sys.stderr)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=orjson.dumps)
        lines = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    structlog.contextvars.bind_contextvars(service=service)


def serve_metrics(listen: str, registry: CollectorRegistry) -> ThreadingWSGIServer:
    """Serves ``/metrics`` on host:port in a thread of its own; port 0 takes a free one.

    Raises:
        ConfigError: the address is none, or the port is taken.
    """
    host, _, port = listen.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host, registry)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError("environment", [f"metrics listen address {listen}: {error}"]) from error
    return server  # type: ignore[return-value]


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
        """A span around the block; `traceparent` (W3C) makes it a child of a remote one."""
        if self._tracer is None:
            return NOTHING
        parent = propagate.extract({"traceparent": traceparent}) if traceparent else None
        return self._tracer.start_as_current_span(name, context=parent, attributes=attributes)

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
