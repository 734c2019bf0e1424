"""Logs are JSON lines, whoever says them, and logging fails nobody."""

import asyncio
import gc
import io
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from services.common.log_lines import Lost
from services.common.logs import (
    RAW_LINES_PER_SECOND,
    _Foreign,
    _log_what_is_read,
    configure_logging,
)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines() -> io.BytesIO:
    lines = io.BytesIO()
    configure_logging("shop", "info", lines)
    return lines


def records(lines: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_logs_are_json_lines_with_service_level_and_time(lines: io.BytesIO) -> None:
    structlog.get_logger().info("sold", thing="bread", grams=500)
    structlog.get_logger().debug("never said")
    (record,) = records(lines)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "sold",
        "thing": "bread",
        "grams": 500,
        "level": "info",
        "service": "shop",
    }


def test_an_error_is_logged_with_its_trace(lines: io.BytesIO) -> None:
    structlog.get_logger().error("broken", exc_info=ValueError("why"))
    (record,) = records(lines)
    assert "ValueError: why" in record["exception"]


class _Shy:
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "value", [2**70, "\udcff", {1: 2}, {2**70}, object(), b"\xff", float("nan"), _Shy()]
)
def test_whatever_is_logged_makes_one_line_and_fails_nobody(
    lines: io.BytesIO, value: object
) -> None:
    structlog.get_logger().info("odd", value=value)
    assert len(records(lines)) == 1


def test_what_libraries_say_becomes_such_a_line(lines: io.BytesIO) -> None:
    logging.getLogger("grpc._cython.cygrpc").error(
        "it broke: %s", "here", exc_info=ValueError("why")
    )
    logging.getLogger("some.library").info("chatter")
    (record,) = records(lines)
    assert record["event"] == "it broke: here"
    assert (record["logger"], record["level"]) == ("grpc._cython.cygrpc", "error")
    assert record["service"] == "shop"
    assert "ValueError: why" in record["exception"]


def test_words_that_do_not_fit_fail_nobody(lines: io.BytesIO) -> None:
    record = logging.LogRecord("lib", logging.ERROR, "", 1, "%d apples", ("no number",), None)
    _Foreign().emit(record)
    assert [one["event"] for one in records(lines)] == ["%d apples"]


def test_bytes_of_a_request_are_no_part_of_the_log(lines: io.BytesIO) -> None:
    logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", b"Bearer \xff secret")
    assert records(lines) == []


def test_on_a_terminal_it_is_text() -> None:
    lines = io.BytesIO()
    configure_logging("shop", "info", lines, coloured=True)
    structlog.get_logger().info("sold", thing="bread \udcff")
    assert b"sold" in lines.getvalue()
    assert not lines.getvalue().startswith(b"{")


def test_on_a_terminal_no_trace_shows_what_variables_hold() -> None:
    def broken(request: str) -> None:
        raise ValueError(len(request))

    lines = io.BytesIO()
    configure_logging("shop", "info", lines, coloured=True)
    try:
        broken("my " + "key")
    except ValueError:
        structlog.get_logger().exception("broken")
    assert b"in broken" in lines.getvalue()
    assert b"my key" not in lines.getvalue()


def test_of_a_task_that_failed_unseen_neither_words_nor_arguments_are_told(
    lines: io.BytesIO,
) -> None:
    async def broken(request: str) -> None:
        raise ValueError(request)

    async def unseen() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(json.loads, "my key {")
        task = asyncio.create_task(broken("my key"))
        await asyncio.wait((task,))
        del task

    asyncio.run(unseen())
    gc.collect()
    callback, task = records(lines)
    assert callback["event"] == "Exception in callback loads"
    assert "JSONDecodeError" in callback["fault"]
    assert task["event"] == "Task exception was never retrieved"
    assert "broken" in task["fault"]
    assert "my key" not in lines.getvalue().decode()


def test_a_flood_from_beneath_python_is_bounded(lines: io.BytesIO) -> None:
    read, write = os.pipe()
    os.write(write, b"it says\n\n" * (RAW_LINES_PER_SECOND + 5) + b"later\n" + b"x" * 20_000)
    os.close(write)
    lost = Lost()
    times = iter([0.5] * (RAW_LINES_PER_SECOND + 5) + [1.0] * 3)
    _log_what_is_read(read, lost, lambda: next(times))
    said = [record["event"] for record in records(lines)]
    assert said[: RAW_LINES_PER_SECOND + 1] == ["it says"] * RAW_LINES_PER_SECOND + ["later"]
    assert [len(event) for event in said[RAW_LINES_PER_SECOND + 1 :]] == [16_384, 3_616]
    assert lost == Lost(raw=5)
