"""The guard of tests/unit/conftest.py can refuse."""

import socket

import grpc
import pytest


@pytest.mark.parametrize("method", ["bind", "connect"])
def test_a_unit_test_cannot_open_a_socket(method: str) -> None:
    with socket.socket() as one, pytest.raises(AssertionError, match="open no sockets"):
        getattr(one, method)(("127.0.0.1", 0))


async def test_a_unit_test_cannot_open_a_channel() -> None:
    with pytest.raises(AssertionError, match="open no sockets"):
        grpc.aio.insecure_channel("127.0.0.1:1")
