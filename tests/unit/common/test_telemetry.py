"""Logs are JSON lines; tracing that goes nowhere costs nothing."""

import json
from collections.abc import Iterator

import pytest
import structlog

from services.common.telemetry import Tracing, configure_logging


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_logs_are_json_lines_with_service_level_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("shop", "info")
    structlog.get_logger().info("sold", thing="bread", grams=500)
    structlog.get_logger().debug("never said")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "sold",
        "thing": "bread",
        "grams": 500,
        "level": "info",
        "service": "shop",
    }


def test_an_error_is_logged_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("shop", "error")
    structlog.get_logger().error("broken", exc_info=ValueError("why"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: why" in json.loads(line)["exception"]


def test_without_an_endpoint_nothing_is_traced() -> None:
    tracing = Tracing("shop")
    assert not tracing.enabled
    with tracing.span("call"):
        assert tracing.traceparent() == ""
    tracing.close()
