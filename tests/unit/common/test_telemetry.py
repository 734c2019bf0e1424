"""Tracing that goes nowhere costs nothing."""

from services.common.telemetry import Tracing


def test_without_an_endpoint_nothing_is_traced() -> None:
    tracing = Tracing("shop")
    assert not tracing.enabled
    with tracing.span("call"):
        assert tracing.traceparent() == ""
    tracing.close()
